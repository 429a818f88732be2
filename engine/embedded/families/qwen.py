"""Qwen 2, 2.5 and 3: biases on q, k and v in the former, a norm of each query and key head in the latter.

Both may have a window on the layers from `max_window_layers` on; no published model turns it on.
"""

from typing import Any

from engine.embedded.families.base import JSON, LLAMA_NAMES, Family, Names, parameters_named
from engine.embedded.families.common import (
    activation,
    context_sizes,
    decoder_spec,
    head_dim,
    key_value_heads,
    refuse,
    stated,
)
from engine.embedded.spec import DecoderSpec

_ATTENTION = "model.layers.{i}.self_attn."
NAMES: Names = {
    **LLAMA_NAMES,
    "qkv": (f"{_ATTENTION}c_attn", *(f"{_ATTENTION}{part}_proj" for part in "qkv")),
}

# What transformers takes where config.json says nothing.
_DEFAULTS = {"num_key_value_heads": 32, "rms_norm_eps": 1e-6, "sliding_window": 4096, "max_window_layers": 28}


def _windows(config: JSON) -> dict[str, Any]:
    """Window and layer types where the window is turned on."""
    window, count = config.get("sliding_window"), config["num_hidden_layers"]
    if not (config.get("use_sliding_window") and window):
        return {}
    first = config["max_window_layers"]
    types = ["sliding_attention" if i >= first else "full_attention" for i in range(count)]
    return {"sliding_window": window, "layer_types": config.get("layer_types") or types}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's QWen2Config."""
    config = {**_DEFAULTS, **config}
    refuse(config, "Qwen", partial_rotary_factor=1.0)
    return {
        "hidden_act": config.get("hidden_act", "silu"),
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_key_value_heads": key_value_heads(config),
        "rms_norm_eps": config["rms_norm_eps"],
        "rope_theta": config.get("rope_theta", 10000.0),
        "vocab_size": config["vocab_size"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        **context_sizes(config),
        "tensor_parallel_shards": 1,
        "head_dim": head_dim(config),
        "dtype": "float32",
        "max_batch_size": 1,
        **_windows(config),
        **stated(config, "rope_scaling"),
    }


def model_config_3(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's Qwen3Config."""
    return {
        **model_config({**config, "head_dim": config.get("head_dim", 128)}),
        "attention_bias": bool(config.get("attention_bias", False)),
        "weight_block_size": None,
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    return decoder_spec("qwen2", model, activation=activation(model["hidden_act"]), qkv_bias=True)


def spec_3(model: JSON) -> DecoderSpec:
    """The decoder that `model_config_3` describes."""
    return decoder_spec(
        "qwen3",
        model,
        activation=activation(model["hidden_act"]),
        qkv_bias=model["attention_bias"],
        attention_out_bias=model["attention_bias"],
        qk_norm="head",
    )


FAMILY = Family(
    model_type="qwen2",
    architectures=("Qwen2ForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=parameters_named(NAMES),
)

FAMILY_3 = Family(
    model_type="qwen3",
    architectures=("Qwen3ForCausalLM",),
    model_config=model_config_3,
    spec=spec_3,
    parameters=parameters_named(NAMES),
)
