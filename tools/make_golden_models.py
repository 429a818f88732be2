"""Makes the small models of the families that mlc_llm's golden files lack: GPT-2 and Phi.

    pip install --group reference .
    python tools/make_golden_models.py tests/data/golden    # writes gpt2/ and phi/

Random weights on which every part matters: without attention, positions or a bias the logits change by
a good part of their standard deviation, also in GPT-2, whose head is its embedding. `hf/` is as found on
the Hub, with the config that transformers 4 wrote; `config.transformers5.json` is that of transformers 5.
`reference.safetensors` is described in make_references.py.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_references
import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import GPT2Config, GPT2LMHeadModel, PhiConfig, PhiForCausalLM, PreTrainedModel

COMMON: dict[str, Any] = {
    "vocab_size": 384,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": False,
}
TOKENS, PROMPT = 48, 24
MARGIN = 0.08
_VERSION = "4.55.0"

TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|endoftext|>",
    "eos_token": "<|endoftext|>",
    "model_max_length": 256,
}


def gpt2() -> PreTrainedModel:
    """A GPT-2 with a tied head, in float32 as on the Hub."""
    return GPT2LMHeadModel(
        GPT2Config(**COMMON | {"tie_word_embeddings": True}, n_positions=256, n_embd=64, n_layer=2, n_head=2)
    )


def phi() -> PreTrainedModel:
    """A Phi with fewer key and value heads than heads and half of each head rotated, for float16."""
    return PhiForCausalLM(
        PhiConfig(
            **COMMON,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        )
    )


def fill(model: PreTrainedModel, seed: int, dtype: torch.dtype) -> None:
    """Random weights, of values that `dtype` has."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            value = noise * 0.2
        elif parameter.ndim == 1:
            value = 1 + noise * 0.1
        elif any(part in name for part in ("wte", "embed_tokens", "wpe")):
            value = noise * 0.3
        else:
            value = noise * 0.2
        with torch.no_grad():
            parameter.copy_(value.to(dtype).float())


def gpt2_tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of the Hub's checkpoint, without the head, which is the embedding."""
    return {name.removeprefix("transformer."): t for name, t in state.items() if name != "lm_head.weight"}


def write(
    folder: Path,
    model: PreTrainedModel,
    dtype: torch.dtype,
    old: Callable[[dict[str, Any]], dict[str, Any]],
    rename: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = lambda state: state,
) -> None:
    """The model's folder, but for its references."""
    hf = folder / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.to(dtype).contiguous().numpy() for k, v in rename(model.state_dict()).items()}
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = dtype
    model.config.architectures = [type(model).__name__]
    new = json.loads(model.config.to_json_string(use_diff=False))
    plain = {key: new[key] for key in sorted(new) if key in STATED[model.config.model_type]}
    plain |= {"architectures": new["architectures"], "transformers_version": new["transformers_version"]}
    dump(folder / "config.transformers5.json", plain)
    stated = {key: value for key, value in plain.items() if key not in ("dtype", "rope_parameters")}
    stated |= {"torch_dtype": plain["dtype"], "transformers_version": _VERSION}
    dump(hf / "config.json", old(stated))
    dump(hf / "tokenizer_config.json", TOKENIZER)
    dump(
        hf / "generation_config.json",
        {"bos_token_id": 0, "eos_token_id": 0, "transformers_version": _VERSION},
    )
    shutil.copyfile(folder.parent / "gpt_neox" / "hf" / "tokenizer.json", hf / "tokenizer.json")


STATED = {
    "gpt2": (
        *("activation_function", "attn_pdrop", "bos_token_id", "dtype", "embd_pdrop", "eos_token_id"),
        *("initializer_range", "layer_norm_epsilon", "model_type", "n_embd", "n_head", "n_inner", "n_layer"),
        *("n_positions", "reorder_and_upcast_attn", "resid_pdrop", "scale_attn_by_inverse_layer_idx"),
        *("scale_attn_weights", "tie_word_embeddings", "use_cache", "vocab_size"),
    ),
    "phi": (
        *("attention_dropout", "bos_token_id", "dtype", "embd_pdrop", "eos_token_id", "hidden_act"),
        *("hidden_size", "initializer_range", "intermediate_size", "layer_norm_eps"),
        *("max_position_embeddings", "model_type", "num_attention_heads", "num_hidden_layers"),
        *("num_key_value_heads", "qk_layernorm", "resid_pdrop", "rope_parameters", "tie_word_embeddings"),
        *("use_cache", "vocab_size"),
    ),
}


def dump(path: Path, content: dict[str, Any]) -> None:
    """JSON as transformers writes it."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def phi_of_4(stated: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings where transformers 4 had them."""
    return stated | {"rope_theta": 10000.0, "rope_scaling": None, "partial_rotary_factor": 0.5}


def main() -> int:
    """Write the folders, with the first seed whose greedy continuation is never a near tie."""
    golden = Path(sys.argv[1])
    for name, make, dtype, old, rename in (
        ("gpt2", gpt2, torch.float32, dict.copy, gpt2_tensors),
        ("phi", phi, torch.float16, phi_of_4, lambda state: state),
    ):
        folder = golden / name
        for seed in range(100):
            model = make().float().eval()
            fill(model, seed, dtype)
            model.tie_weights()
            write(folder, model, dtype, old, rename)
            random = np.random.default_rng(seed)
            ids = random.integers(3, 370, TOKENS).astype(np.int32)
            references = make_references.references(folder, ids, ids[:PROMPT])
            if references["margin"][0] > MARGIN:
                save_file(references, folder / "reference.safetensors")
                sys.stdout.write(f"{name}: seed {seed}, margin {references['margin'][0]:.3f}\n")
                break
        else:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
