"""Phi-3, Phi-3.5 and Phi-4 text models: Llama's decoder with joined weights and LongRoPE."""

from typing import Any

from engine.embedded.families.base import JSON, Family, Names, parameters_named
from engine.embedded.families.common import (
    context_sizes,
    decoder_spec,
    head_dim,
    key_value_heads,
    refuse,
    windowed,
)
from engine.embedded.spec import DecoderSpec

_TO, _FROM = "transformer.h.{i}.", "model.layers.{i}."
NAMES: Names = {
    "embedding": ("transformer.embd", "model.embed_tokens"),
    "attention_norm": (f"{_TO}ln", f"{_FROM}input_layernorm"),
    "qkv": (f"{_TO}mixer.qkv_proj", f"{_FROM}self_attn.qkv_proj"),
    "attention_out": (f"{_TO}mixer.out_proj", f"{_FROM}self_attn.o_proj"),
    "mlp_norm": (f"{_TO}post_attention_layernorm", f"{_FROM}post_attention_layernorm"),
    "gate_up": (f"{_TO}mlp.gate_up_proj", f"{_FROM}mlp.gate_up_proj"),
    "down": (f"{_TO}mlp.down_proj", f"{_FROM}mlp.down_proj"),
    "norm": ("transformer.norm", "model.norm"),
    "head": "lm_head",
}


# What transformers takes where config.json says nothing.
_DEFAULTS = {"rms_norm_eps": 1e-5}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's Phi3Config, and the layers' `sliding_window`, which it ignores."""
    config = {**_DEFAULTS, **config}
    refuse(config, "Phi-3", hidden_act="silu", attention_bias=False)
    original = config.get("original_max_position_embeddings", 4096)
    return {
        "model_type": "phi3",
        "hidden_size": config["hidden_size"],
        "vocab_size": config["vocab_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "intermediate_size": config["intermediate_size"],
        "rms_norm_eps": config["rms_norm_eps"],
        "num_key_value_heads": key_value_heads(config),
        "max_position_embeddings": config["max_position_embeddings"],
        "position_embedding_base": config.get("rope_theta", 10000.0),
        "rope_scaling": _scaling(config, original),
        "original_max_position_embeddings": original,
        **context_sizes(config),
        "head_dim": head_dim(config),
        "tensor_parallel_shards": 1,
        "max_batch_size": 1,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
        **windowed(config),
    }


def _scaling(config: JSON, original: int) -> dict[str, Any] | None:
    """`rope_scaling` as mlc_llm completes it; early models call LongRoPE "su"."""
    scaling = config.get("rope_scaling")
    if scaling is None:
        return None
    kind = "longrope" if scaling.get("rope_type") == "su" else scaling.get("rope_type")
    if kind != "longrope":
        raise ValueError(f"rope_scaling of type {kind!r} is none of Phi 3's, which is longrope")
    return {
        "original_max_position_embeddings": original,
        **scaling,
        "type": kind,
        "rope_type": kind,
        "max_position_embeddings": config["max_position_embeddings"],
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    return decoder_spec("phi3", model, rotary_dim=int(model["head_dim"] * model["partial_rotary_factor"]))


FAMILY = Family(
    model_type="phi3",
    architectures=("Phi3ForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=parameters_named(NAMES),
)
