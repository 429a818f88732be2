"""How each family's weights are stored: odd shapes, mlc_llm's names, and other names in the source."""

import json
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import GOLDEN
from family_support import Config, config_of, decoder, silent
from quantization_reference import plain
from safetensors.numpy import load_file, save_file

from engine.catalog import QUANTIZATIONS
from engine.embedded.convert_weight import convert
from engine.embedded.families.registry import FAMILIES
from engine.embedded.gen_config import generate
from engine.embedded.source import decoder_of, longest_context
from engine.embedded.spec import Parameter
from engine.model import facts
from engine.model.config import normalise

# Odd shapes: 1 layer, 1 head or several, sizes that no group of 32 divides, head_dim unlike hidden / heads.

ODD: dict[str, Config] = {
    "gpt2": {"vocab_size": 131, "n_embd": 45, "n_layer": 1, "n_head": 3, "n_inner": 53}
} | {
    name: {
        "vocab_size": 131,
        "hidden_size": 72,  # of a head of 24 a quarter and a half can be rotated in pairs
        "intermediate_size": 53,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
    }
    for name in ("gpt_neox", "olmo2", "phi", "phi3", "stablelm")
}
ODD |= {
    name: ODD["phi"] | {"hidden_size": 45, "num_attention_heads": 1, "head_dim": 22, "layer_types": None}
    for name in ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen3")
}
ODD["qwen2"] = ODD["phi"] | {"num_key_value_heads": 3}
UNTIED_TOO = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "olmo2",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi3",
    "stablelm",
)


@pytest.mark.parametrize(
    ("name", "tied", "dtype"),
    [
        (name, tied, dtype)
        for name in ODD
        for tied, dtype in [(None, "float32")]
        + ([(True, "float16"), (False, "bfloat16")] if name in UNTIED_TOO else [])
    ],
)
def test_odd_shapes_are_stored_exactly(name: str, tied: bool | None, dtype: str, tmp_path: Path) -> None:
    """Every stored tensor of a made model against a plain statement, from configs that state no dtype."""
    config = config_of(name, **ODD[name], torch_dtype=None)
    if tied is not None:
        config["tie_word_embeddings"] = tied
    spec, parameters = decoder_of(normalise(config))
    if tied is not None:
        assert spec.tie_word_embeddings == tied
    source = tmp_path / "hf"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config))
    made = tensors_of(parameters, np.dtype(getattr(ml_dtypes, dtype, None) or dtype))
    save_file(made, source / "model.safetensors")
    for quantization in ("q0f32", "q4f16_1"):
        output = tmp_path / quantization
        convert(source, quantization, output, progress=silent)
        found = records(output)
        for parameter in parameters:
            check_stored(parameter, made, quantization, found)
        assert not found


def tensors_of(parameters: tuple[Parameter, ...], dtype: np.dtype[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Random source tensors for `parameters`."""
    rng = np.random.default_rng(5)
    made = {}
    for parameter in parameters:
        rows = parts_of(parameter)
        for source, count in zip(parameter.sources, rows, strict=True):
            shape = (count, *parameter.shape[1:])
            values = rng.standard_normal(shape[::-1] if parameter.transpose else shape)
            made[source] = np.ascontiguousarray(values.astype(np.float32).astype(dtype))
    return made


def parts_of(parameter: Parameter) -> list[int]:
    """The rows of each source: q before k and v, all else in equal parts."""
    total, count = parameter.shape[0], len(parameter.sources)
    if count != 3:
        return [total // count] * count
    config_rows = {"q": total - 2 * QKV[total], "k": QKV[total], "v": QKV[total]}
    return list(config_rows.values())


# Rows of k for those of q, k and v joined: one key head of three, one of one, three of three.
QKV = {120: 24, 66: 22, 135: 45, 216: 72}


def records(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every stored tensor by its name, float32 as the bfloat16 that lies on disk."""
    out = {}
    for shard in json.loads((folder / "tensor-cache.json").read_text())["records"]:
        data = (folder / shard["dataPath"]).read_bytes()
        for record in shard["records"]:
            dtype = np.dtype(ml_dtypes.bfloat16 if record["dtype"] == "float32" else record["dtype"])
            array = np.frombuffer(data, dtype, prod(record["shape"]), record["byteOffset"])
            out[record["name"]] = array.reshape(record["shape"])
    return out


def check_stored(
    parameter: Parameter,
    made: dict[str, np.ndarray[Any, Any]],
    quantization: str,
    found: dict[str, np.ndarray[Any, Any]],
) -> None:
    """Take what is stored of `parameter` out of `found` and compare it with what it is made of."""
    parts = [made[name].T if parameter.transpose else made[name] for name in parameter.sources]
    joined = np.concatenate(parts)
    if heads := parameter.interleaved_heads:
        # [heads, 3, head_dim] to [3, heads, head_dim], row by row.
        d = joined.shape[0] // (3 * heads)
        order = [(h * 3 + part) * d + e for part in range(3) for h in range(heads) for e in range(d)]
        joined = joined[order]
    if parameter.plus_one:
        joined = (joined.astype(np.float32) + 1).astype(joined.dtype)
    how = QUANTIZATIONS[quantization]
    if how.bits and len(parameter.shape) == 2:
        base = parameter.name.removesuffix(".weight")
        words, scales = plain(joined, how)
        np.testing.assert_array_equal(found.pop(f"{base}.q_weight"), words)
        np.testing.assert_array_equal(found.pop(f"{base}.q_scale"), scales)
        return
    stored = found.pop(parameter.name)
    dtype = ml_dtypes.bfloat16 if (parameter.dtype or how.model_dtype) == "float32" else np.float16
    np.testing.assert_array_equal(stored, joined.astype(np.float32).astype(dtype))


# What mlc_llm's loaders call the parameters of the families that no golden file of its own shows.


def test_gpt2_is_stored_as_mlc_llm_names_it(tmp_path: Path) -> None:
    convert(GOLDEN / "gpt2" / "hf", "q0f32", tmp_path, progress=silent)
    found, source = records(tmp_path), load_file(GOLDEN / "gpt2" / "hf" / "model.safetensors")
    layer = {
        f"{part}.{end}"
        for part in ("attn.c_attn", "attn.c_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for end in ("weight", "bias")
    }
    assert set(found) == {"lm_head.weight", *(f"transformer.{n}.weight" for n in ("wte", "wpe", "ln_f"))} | {
        "transformer.ln_f.bias",
        *(f"transformer.h.{i}.{name}" for i in range(2) for name in layer),
    }
    for name in found:
        of_source = "wte.weight" if name == "lm_head.weight" else name.removeprefix("transformer.")
        turned = source[of_source].T if ".c_" in name and name.endswith("weight") else source[of_source]
        np.testing.assert_array_equal(found[name], turned.astype(ml_dtypes.bfloat16))
    # The loader names the head first, and both come with the one tensor that they are.
    assert list(found).index("lm_head.weight") == list(found).index("transformer.wte.weight") - 1


def test_phi_is_stored_as_mlc_llm_names_it(tmp_path: Path) -> None:
    convert(GOLDEN / "phi" / "hf", "q0f32", tmp_path, progress=silent)
    found, source = records(tmp_path), load_file(GOLDEN / "phi" / "hf" / "model.safetensors")
    names = {"transformer.embd.weight": ["model.embed_tokens.weight"]}
    for end in ("weight", "bias"):
        names[f"lm_head.ln.{end}"] = [f"model.final_layernorm.{end}"]
        names[f"lm_head.linear.{end}"] = [f"lm_head.{end}"]
        for i in range(2):
            to, of = f"transformer.h.{i}.", f"model.layers.{i}."
            names[f"{to}ln.{end}"] = [f"{of}input_layernorm.{end}"]
            names[f"{to}mixer.Wqkv.{end}"] = [f"{of}self_attn.{part}_proj.{end}" for part in "qkv"]
            names[f"{to}mixer.out_proj.{end}"] = [f"{of}self_attn.dense.{end}"]
            names[f"{to}mlp.fc1.{end}"] = [f"{of}mlp.fc1.{end}"]
            names[f"{to}mlp.fc2.{end}"] = [f"{of}mlp.fc2.{end}"]
    assert set(found) == set(names)
    for name, sources in names.items():
        joined = np.concatenate([source[s] for s in sources])
        np.testing.assert_array_equal(found[name], joined.astype(np.float32).astype(ml_dtypes.bfloat16))


# The source's own ways


def saved(folder: Path, name: str, rename: Callable[[str], str], **more: np.ndarray[Any, Any]) -> Path:
    """The golden model with its tensors renamed, and `more` beside them."""
    shutil.copytree(GOLDEN / name / "hf", folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(key): value for key, value in tensors.items()} | more, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("gpt2", lambda key: f"transformer.{key}"),
        ("gemma3_text", lambda key: f"language_model.{key}"),
        ("gemma3_text", lambda key: key.replace("model.", "model.language_model.")),
        ("llama_tied", lambda key: key.removeprefix("model.")),
        ("phi", lambda key: f"language_model.{key}"),
    ],
)
def test_other_prefixes_are_found(name: str, rename: Callable[[str], str], tmp_path: Path) -> None:
    source = saved(tmp_path / "hf", name, rename)
    convert(GOLDEN / name / "hf", "q4f16_1", tmp_path / "as-it-is", progress=silent)
    convert(source, "q4f16_1", tmp_path / "renamed", progress=silent)
    one, other = (records(tmp_path / folder) for folder in ("as-it-is", "renamed"))
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    assert facts.read(source).parameter_count == facts.read(GOLDEN / name / "hf").parameter_count


def test_the_text_part_of_a_multimodal_gemma_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vision = {"vision_tower.post_layernorm.weight": np.ones(8, np.float32)}
    source = saved(tmp_path / "hf", "gemma3_text", lambda key: f"language_model.{key}", **vision)
    text = config_of("gemma3_text", architectures=None)
    outer = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": {"hidden_size": 8},
        "eos_token_id": [2, 5],
    }
    (source / "config.json").write_text(json.dumps(outer))
    convert(source, "q4f32_1", tmp_path / "out", progress=silent)
    expected = GOLDEN / "gemma3_text" / "expected" / "q4f32_1" / "params_shard_0.bin"
    assert (tmp_path / "out" / "params_shard_0.bin").read_bytes() == expected.read_bytes()
    assert "1 tensors of the source have no place in this model: vision_tower" in capsys.readouterr().err
    ours = generate(source, tmp_path / "out", quantization="q4f32_1").config
    theirs = generate(GOLDEN / "gemma3_text" / "hf", tmp_path / "text", quantization="q4f32_1").config
    assert FAMILIES["gemma3_text"].spec(ours["model_config"]) == decoder("gemma3_text")[0]
    assert {**ours, "model_config": 0} == {**theirs, "model_config": 0}


def test_a_sparse_text_config_has_transformers_defaults() -> None:
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    config = normalise({"model_type": "gemma3", "text_config": text})
    spec, _ = decoder_of(config)
    assert (spec.vocab_size, spec.num_attention_heads, spec.num_key_value_heads) == (262208, 8, 4)
    assert (spec.head_dim, spec.attention_scale, spec.tie_word_embeddings) == (256, 1 / 16, True)
    assert [layer.window for layer in spec.layers[:7]] == [1024] * 5 + [None, 1024]
    assert {layer.rope_theta for layer in spec.layers} == {1e6, 1e4}
    assert longest_context(config) == 131072


def test_masks_and_frequencies_of_old_checkpoints_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {f"h.{i}.attn.bias": np.ones((1, 1, 4, 4), np.float32) for i in range(2)}
    source = saved(tmp_path / "hf", "gpt2", lambda key: key, **more)
    convert(source, "q0f32", tmp_path / "out", progress=silent)
    convert(GOLDEN / "gpt2" / "hf", "q0f32", tmp_path / "plain", progress=silent)
    names = ("out", "plain")
    one, other = ((tmp_path / name / "tensor-cache.json").read_bytes() for name in names)
    assert one == other
    assert "no place" not in capsys.readouterr().err
