"""A small Llama as an AWQ checkpoint, and what its weights are; packed as AutoAWQ documents it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from exports import GOLDEN
from safetensors.numpy import save_file

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of 8 neighbours along out_features each nibble of a word holds, the lowest first."""
HIDDEN, INTER, HEADS, KV_HEADS, HEAD_DIM, VOCAB, LAYERS = 128, 256, 4, 2, 32, 384, 2
GROUP = 128

Tensors = dict[str, np.ndarray[Any, Any]]


def pack(integers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[K, N] of 0 to 15 as int32 [K, N / 8]."""
    words = np.zeros((integers.shape[0], integers.shape[1] // 8), np.uint32)
    for nibble, place in enumerate(ORDER):
        words |= integers[:, place::8].astype(np.uint32) << np.uint32(4 * nibble)
    return words.view(np.int32)


def linear(rng: np.random.Generator, rows: int, columns: int) -> tuple[Tensors, np.ndarray[Any, Any]]:
    """The three tensors of a layer [rows, columns], and its weight in float32."""
    integers = rng.integers(0, 16, (columns, rows))
    zeros = rng.integers(0, 16, (columns // GROUP, rows))
    scales = rng.uniform(0.01, 0.03, zeros.shape).astype(np.float16)
    spread = [np.repeat(part, GROUP, axis=0) for part in (zeros, scales.astype(np.float32))]
    weight = ((integers - spread[0]) * spread[1]).T.astype(np.float32)
    return {"qweight": pack(integers), "qzeros": pack(zeros), "scales": scales}, weight


def layers() -> dict[str, tuple[int, int]]:
    """The linear layers by name: out_features, in_features."""
    shapes = {}
    for i in range(LAYERS):
        attention, mlp = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
        shapes[f"{attention}q_proj"] = HEADS * HEAD_DIM, HIDDEN
        shapes |= {f"{attention}{part}_proj": (KV_HEADS * HEAD_DIM, HIDDEN) for part in "kv"}
        shapes[f"{attention}o_proj"] = HIDDEN, HEADS * HEAD_DIM
        shapes |= {f"{mlp}{part}_proj": (INTER, HIDDEN) for part in ("gate", "up")}
        shapes[f"{mlp}down_proj"] = HIDDEN, INTER
    return shapes


def make(folder: Path, **settings: object) -> tuple[Tensors, Tensors]:
    """Write the checkpoint to `folder`: what its file holds, and float32 weights by name.

    `settings` change `quantization_config`.
    """
    rng = np.random.default_rng(11)
    norms = [f"model.layers.{i}.{n}_layernorm" for i in range(LAYERS) for n in ("input", "post_attention")]
    plain = {f"{name}.weight": rng.uniform(0.5, 1.5, HIDDEN) for name in [*norms, "model.norm"]}
    for name in ("model.embed_tokens", "lm_head"):
        plain[f"{name}.weight"] = rng.standard_normal((VOCAB, HIDDEN)) * 0.5
    source = {name: tensor.astype(np.float16) for name, tensor in plain.items()}
    weights = {name: tensor.astype(np.float32) for name, tensor in source.items()}
    for name, (rows, columns) in layers().items():
        parts, weights[f"{name}.weight"] = linear(rng, rows, columns)
        source |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    shutil.copytree(GOLDEN / "llama" / "hf", folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    save_file(source, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": INTER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "num_hidden_layers": LAYERS,
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": None,
            **settings,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return source, weights
