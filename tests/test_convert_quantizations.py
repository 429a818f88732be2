"""The convert_weight stage for every quantization: names, shapes and bytes against a plain statement of them.

The model has odd shapes: in_features that no group divides, a vocabulary and rows that nothing divides.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_support import read
from quantization_reference import plain, to_bfloat16
from safetensors.numpy import save_file

from engine.catalog import QUANTIZATIONS, Quantization
from engine.embedded import convert_weight
from engine.embedded.convert_weight import convert
from engine.embedded.source import decoder_of
from engine.embedded.stored import all_stored_tensors
from engine.embedded.weights import stored_nbytes
from engine.errors import UsageError

VOCAB, HIDDEN, INTER, HEADS, HEAD_DIM = 131, 36, 53, 3, 10
QUANTIZED = [q for q in QUANTIZATIONS.values() if not q.from_awq]
LAYER = "model.layers.0."
JOINED = {
    f"{LAYER}self_attn.qkv_proj": [f"{LAYER}self_attn.{part}_proj" for part in "qkv"],
    f"{LAYER}mlp.gate_up_proj": [f"{LAYER}mlp.{part}_proj" for part in ("gate", "up")],
}

Tensors = dict[str, np.ndarray[Any, Any]]


def made(folder: Path, *, tied: bool) -> Tensors:
    """A Llama of one layer in float32: its folder, and its tensors."""
    inner = HEADS * HEAD_DIM
    shapes = {
        "model.embed_tokens": (VOCAB, HIDDEN),
        **{f"{LAYER}self_attn.{part}_proj": (inner, HIDDEN) for part in "q"},
        **{f"{LAYER}self_attn.{part}_proj": (HEAD_DIM, HIDDEN) for part in "kv"},
        f"{LAYER}self_attn.o_proj": (HIDDEN, inner),
        **{f"{LAYER}mlp.{part}_proj": (INTER, HIDDEN) for part in ("gate", "up")},
        f"{LAYER}mlp.down_proj": (HIDDEN, INTER),
        f"{LAYER}input_layernorm": (HIDDEN,),
        f"{LAYER}post_attention_layernorm": (HIDDEN,),
        "model.norm": (HIDDEN,),
        **({} if tied else {"lm_head": (VOCAB, HIDDEN)}),
    }
    rng = np.random.default_rng(7)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir()
    save_file({f"{name}.weight": t for name, t in tensors.items()}, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": INTER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "num_hidden_layers": 1,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def expected(tensors: Tensors, how: Quantization) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """What mlc_llm stores, from the names alone of its table of quantizations."""
    joined = {name: np.concatenate([tensors[part] for part in parts]) for name, parts in JOINED.items()}
    parts = {part for parts in JOINED.values() for part in parts}
    dtype = {"f16": "float16", "f32": "float32", "bf16": "bfloat16"}[how.name[2:].partition("_")[0]]
    result = {}
    for name, tensor in {**{n: t for n, t in tensors.items() if n not in parts}, **joined}.items():
        left = how.name.startswith("q0") or tensor.ndim == 1
        left |= how.name.endswith("_2") and name in ("model.embed_tokens", "lm_head")
        if left:
            on_disk = tensor.astype(np.float16) if dtype == "float16" else to_bfloat16(tensor)
            result[f"{name}.weight"] = dtype, on_disk
            continue
        transposed = how.name.endswith("_0") and name != "model.embed_tokens"
        words, scales = plain(tensor, how, "KN" if transposed else "NK")
        result[f"{name}.q_weight"] = "uint32", words
        result[f"{name}.q_scale"] = dtype, scales
    return result


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("how", QUANTIZED, ids=lambda q: q.name)
def test_every_tensor_is_stored_as_stated(
    how: Quantization, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_weight, "_BLOCK", 400)  # several blocks to a matrix
    tensors = made(tmp_path / "model", tied=tied)
    convert(tmp_path / "model", how.name, tmp_path / "out", progress=lambda *_: None)
    found, want = read(tmp_path / "out"), expected(tensors, how)
    parameters = decoder_of(json.loads((tmp_path / "model" / "config.json").read_text()))[1]
    assert sum(t.nbytes for _, t in found.values()) == sum(
        map(stored_nbytes, all_stored_tensors(parameters, how))
    )
    assert found.keys() == want.keys()
    for name, (dtype, values) in want.items():
        assert found[name][0] == dtype, name
        assert found[name][1].shape == values.shape, name
        assert found[name][1].tobytes() == values.tobytes(), name


@pytest.mark.parametrize(
    ("quantization", "largest"), [("q0bf16", np.finfo(np.float32).max), ("q4f16_1", 65520)]
)
def test_values_beyond_the_range_of_what_is_stored_are_refused(
    quantization: str, largest: float, tmp_path: Path
) -> None:
    """A cast would have them infinite; the writer of float32 keeps them finite."""
    tensors = made(tmp_path / "model", tied=False)
    tensors["model.norm"][:2] = largest, largest * 0.99
    named = {f"{name}.weight": t for name, t in tensors.items()}
    save_file(named, tmp_path / "model" / "model.safetensors")
    with pytest.raises(UsageError, match=r"model\.norm\.weight has 1 values beyond the range of b?float16"):
        convert(tmp_path / "model", quantization, tmp_path / "out", progress=lambda *_: None)
    assert list((tmp_path / "out").iterdir()) == []
    convert(tmp_path / "model", "q0f32", tmp_path / "out", progress=lambda *_: None)
    assert np.isfinite(read(tmp_path / "out")["model.norm.weight"][1].astype(np.float32)).all()
