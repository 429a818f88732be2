"""Checkpoints of real shapes, with seeded random weights, for timing (`... made_models FOLDER`)."""

import json
import struct
import sys
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

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
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.55.0",
}
_BLOCK = 2**20


def gemma3_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Gemma 3 text checkpoint, sorted by name as transformers saves them."""
    h, inter, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], h),
        "model.norm.weight": (h,),
    }
    for i in range(config["num_hidden_layers"]):
        layer = {
            "self_attn.q_proj": (q, h),
            "self_attn.k_proj": (kv, h),
            "self_attn.v_proj": (kv, h),
            "self_attn.o_proj": (h, q),
            "self_attn.q_norm": (d,),
            "self_attn.k_norm": (d,),
            "mlp.gate_proj": (inter, h),
            "mlp.up_proj": (inter, h),
            "mlp.down_proj": (h, inter),
            "input_layernorm": (h,),
            "post_attention_layernorm": (h,),
            "pre_feedforward_layernorm": (h,),
            "post_feedforward_layernorm": (h,),
        }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return dict(sorted(shapes.items()))


def make_gemma3(folder: Path, config: dict[str, Any] = GEMMA3_270M) -> Path:
    """Write config.json and a bfloat16 model.safetensors into `folder`, a block at a time; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = gemma3_shapes(config)
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
                block *= np.float32(config["initializer_range"])
                stream.write(block.astype(ml_dtypes.bfloat16).tobytes())
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


if __name__ == "__main__":
    make_gemma3(Path(sys.argv[1]))
