"""What transformers makes of config.json: the numbers that tests/test_config_references.py compares with.

    pip install --group reference .
    python tools/make_config_references.py     # writes tests/data/config_references.json

Each configuration of tests/published_configs.py, as it is and with fields left out, set to null or
spelled as transformers 5 spells them, becomes a model without weights (torch's meta device), and what
matters is read off it: the names and shapes of its parameters, the frequencies and windows of each layer,
the scale of attention, softcaps, activation and norm. So every default that transformers has for an
absent field is in the data. A configuration that transformers refuses is left out.
"""

import copy
import json
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, logging

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from published_configs import MADE, PUBLISHED, Config, changed  # noqa: E402

TARGET = ROOT / "tests" / "data" / "config_references.json"
SEED, SUBSETS = 7, 6
# Without these no model has a size of its own; theirs in transformers are those of one published model.
SIZES = {"model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "text_config"}
SIZES |= {"num_attention_heads", "max_position_embeddings", "n_embd", "n_layer", "n_head", "n_positions"}
# Fields that no decoder depends on, whatever they say.
BESIDE = {"architectures", "torch_dtype", "dtype", "use_cache", "transformers_version", "auto_map"}
BESIDE |= {"initializer_range", "task_specific_params", "vision_config", "_num_labels", "id2label"}
BESIDE |= {"pretraining_tp", "transformers.js_config", "cache_implementation", "is_llama_config"}
BESIDE |= {"bos_token_id", "eos_token_id", "pad_token_id", "boi_token_index", "eoi_token_index"}
BESIDE |= {"image_token_index", "mm_tokens_per_image", "n_ctx", "full_attn_mod", "interpolate_factor"}


def variants(config: Config) -> Iterator[tuple[list[str], Config]]:
    """Fields to leave out, alone and together, and fields to set: null, and as transformers 5 writes them."""
    yield [], {}
    inner = config.get("text_config", config)
    free = [
        key
        for key in inner
        if key not in SIZES | BESIDE and not key.startswith("summary_") and "drop" not in key
    ]
    for key in free:
        yield [key], {}
        if inner[key] is not None:
            yield [], {key: None}
    rng = random.Random(SEED)
    for _ in range(SUBSETS if len(free) > 1 else 0):
        yield sorted(rng.sample(free, rng.randint(2, len(free)))), {}
    if (made := built(inner)) is not None:
        written = {k: v for k, v in made.to_dict().items() if v is not None or k in inner}
        new = {k: v for k, v in written.items() if k not in BESIDE and (k not in inner or inner[k] != v)}
        yield sorted(inner.keys() - written.keys() - BESIDE), new | {"dtype": "bfloat16"}


def built(config: Config) -> PretrainedConfig | None:
    """The configuration of transformers, None for what it refuses."""
    config = copy.deepcopy(config)
    try:
        made = CONFIG_MAPPING[config.pop("model_type")].from_dict(config)
    except Exception:
        return None
    made.pad_token_id = None  # of the real vocabulary, beyond the small one
    return made


def reference(config: Config) -> Config | None:
    """What matters of the model that `config` describes; None where transformers refuses it."""
    made = built(config.get("text_config", config))
    if made is None:
        return None
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(made, attn_implementation="eager")
        rotary = rotations(model, made)
    except Exception:
        return None
    if made.num_attention_heads % getattr(made, "num_key_value_heads", 1):
        return None  # it fails in its first attention
    modules = dict(model.named_modules())
    attention = next(m for name, m in modules.items() if name.endswith(("self_attn", ".attn", ".attention")))
    mlp = next(m for name, m in modules.items() if name.endswith(".mlp"))
    norm = next(m for name, m in modules.items() if "norm" in name or "ln_" in name)
    act = next(
        m for m in (getattr(mlp, n, None) for n in ("act_fn", "activation_fn", "act")) if m is not None
    )
    scale = getattr(attention, "scaling", None)
    return {
        "parameters": {name: list(p.shape) for name, p in model.named_parameters()},
        "activation": type(act).__name__,
        "norm_eps": next(getattr(norm, n) for n in ("variance_epsilon", "eps") if hasattr(norm, n)),
        "attention_scale": scale if scale is not None else attention.head_dim**-0.5,
        "softcaps": [getattr(made, f"{n}_logit_softcapping", None) for n in ("attn", "final")],
        "parallel_residual": bool(getattr(made, "use_parallel_residual", made.model_type == "phi")),
        "layers": [
            {"window": window, "rope": rotary.get(kind, rotary.get(""))}
            for kind, window in zip(*windows(made), strict=True)
        ],
    }


def windows(made: PretrainedConfig) -> tuple[list[str], list[int | None]]:
    """Each layer's type, and its window: as the models of transformers take them from their config."""
    count = made.num_hidden_layers
    window = getattr(made, "sliding_window", None)
    if made.model_type not in ("mistral", "phi3", "qwen2", "qwen3", "gemma2", "gemma3_text"):
        window = None
    types = getattr(made, "layer_types", None)
    if types is None or made.model_type in ("mistral", "phi3"):
        types = ["sliding_attention"] * count
    assert len(types) == count
    return types, [window if kind == "sliding_attention" else None for kind in types]


def rotations(model: torch.nn.Module, made: PretrainedConfig) -> dict[str, Config]:
    """By layer type ("" for all): radians per position of each pair, and the factor of all cosines."""
    found = next((m for m in model.modules() if type(m).__name__.endswith("RotaryEmbedding")), None)
    if found is None:
        return {}
    real = type(found)(made)
    out = {}
    for kind in ("", "full_attention", "sliding_attention"):
        prefix = f"{kind}_" if kind else ""
        if (frequencies := getattr(real, f"{prefix}inv_freq", None)) is not None:
            factor = getattr(real, f"{prefix}attention_scaling")
            out[kind] = {"frequencies": [float(f"{f:.7g}") for f in frequencies.tolist()], "factor": factor}
    return out


def main() -> None:
    """Write the references of every variant of every published configuration, each once."""
    logging.set_verbosity(logging.CRITICAL)
    warnings.simplefilter("ignore")
    structures: dict[str, int] = {}
    cases, refused = [], 0
    for name, config in (PUBLISHED | MADE).items():
        seen = set()
        for without, fields in variants(config):
            variant = changed(config, without, fields)
            text = json.dumps(variant, sort_keys=True)
            if text in seen:
                continue
            seen.add(text)
            found = reference(variant)
            if found is None:
                refused += 1
                assert without or fields, name
                continue
            for part in ("parameters", "layers"):
                found[part] = structures.setdefault(json.dumps(found[part]), len(structures))
            cases.append({"name": name, "without": without, "with": fields} | found)
    head = ",\n".join(structures)
    body = ",\n".join(json.dumps(case) for case in cases)
    TARGET.write_text(f'{{"structures": [\n{head}\n],\n"cases": [\n{body}\n]}}\n', encoding="utf-8")
    sys.stderr.write(f"{len(cases)} cases, {refused} that transformers refuses\n")


if __name__ == "__main__":
    main()
