"""Checkpoints of real shapes, with seeded random weights, for timing (`... made_models FOLDER NAME`)."""

import json
import shutil
import struct
import sys
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from engine.embedded.families.registry import FAMILIES
from engine.embedded.source import decoder_of
from engine.model.config import normalise

# google/gemma-3-270m.
GEMMA3_270M: dict[str, Any] = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 32768,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "sliding_window": 512,
    "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(18)],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "tie_word_embeddings": True,
    "use_cache": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.55.0",
}
# meta-llama/Llama-3.2-1B.
LLAMA_1B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.55.0",
}
MODELS = {"gemma-270m": GEMMA3_270M, "llama-1b": LLAMA_1B}
TOKENIZER = Path(__file__).parents[1] / "engine" / "demo_model"
_BLOCK = 2**20
_STANDARD_DEVIATION = 0.02


def family_config(family: str) -> dict[str, Any]:
    """A config.json of `family` for some 150 M parameters, in the same sizes for all."""
    if family == "gpt2":
        sizes = {"n_embd": 1024, "n_inner": 2816, "n_layer": 8, "n_head": 16, "n_positions": 1024}
        return {"architectures": ["GPT2LMHeadModel"], "model_type": family, "vocab_size": 32000} | sizes
    common = {
        "architectures": [FAMILIES[family].architectures[0]],
        "model_type": family,
        "vocab_size": 32000,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    if family != "gpt_neox":
        common["num_key_value_heads"] = 4
    return common | _OWN.get(family, {})


_OWN: dict[str, dict[str, Any]] = {
    "gemma": {"hidden_act": "gelu_pytorch_tanh", "head_dim": 64},
    "gemma2": {
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": 64,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 64,
        "sliding_window": 512,
    },
    "gemma3_text": {
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "sliding_window": 512,
        "rope_local_base_freq": 10000.0,
        "sliding_window_pattern": 6,
    },
    "qwen3": {"head_dim": 64},
    "phi": {"hidden_act": "gelu_new", "partial_rotary_factor": 0.5},
    "stablelm": {"partial_rotary_factor": 0.25},
}


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint of that config.json, sorted by name as transformers saves them."""
    spec, parameters = decoder_of(normalise(config))
    shapes: dict[str, tuple[int, ...]] = {}
    for parameter in parameters:
        rows, *rest = parameter.shape
        kv = spec.num_key_value_heads * spec.head_dim
        count = len(parameter.sources)
        parts = (rows - 2 * kv, kv, kv) if count == 3 else (rows // count,) * count
        for name, part in zip(parameter.sources, parts, strict=True):
            shapes[name] = (*rest, part) if parameter.transpose else (part, *rest)
    return dict(sorted(shapes.items()))


def make_model(folder: Path, config: dict[str, Any]) -> Path:
    """Write config.json and a bfloat16 model.safetensors into `folder`, a block at a time; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = tensor_shapes(config)
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (end, end := end + 2 * prod(shape))}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    rng = np.random.Generator(np.random.PCG64(0))
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(head)) + head)
        for shape in shapes.values():
            for start in range(0, prod(shape), _BLOCK):
                block = rng.standard_normal(min(_BLOCK, prod(shape) - start), dtype=np.float32)
                block *= np.float32(_STANDARD_DEVIATION)
                stream.write(block.astype(ml_dtypes.bfloat16).tobytes())
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # A tokenizer of any kind, for gen_config: no text is ever encoded.
    for path in TOKENIZER.glob("tokenizer*.json"):
        shutil.copy(path, folder)
    return folder


if __name__ == "__main__":
    make_model(Path(sys.argv[1]), MODELS[sys.argv[2]])
