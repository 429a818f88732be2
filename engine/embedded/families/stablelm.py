"""StableLM 2 and StableLM 3B: Llama's decoder with layer norms and partial rotary positions."""

from typing import Any

from engine.embedded.families.base import JSON, Family, decoder_parameters
from engine.embedded.families.common import (
    context_sizes,
    decoder_spec,
    head_dim,
    key_value_heads,
    refuse,
    stated,
)
from engine.embedded.spec import DecoderSpec

# What transformers takes where config.json says nothing.
_DEFAULTS = {"num_key_value_heads": 32, "layer_norm_eps": 1e-5}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's StableLmConfig, and `use_parallel_residual`, which it ignores."""
    config = {**_DEFAULTS, **config}
    refuse(config, "StableLM", hidden_act="silu", qk_layernorm=False)
    return {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": key_value_heads(config),
        "layer_norm_eps": config["layer_norm_eps"],
        "partial_rotary_factor": config.get("partial_rotary_factor", 0.25),
        "rope_theta": config.get("rope_theta", 10000.0),
        "intermediate_size": config["intermediate_size"],
        "use_qkv_bias": bool(config.get("use_qkv_bias", False)),
        "head_dim": head_dim(config),
        **context_sizes(config),
        "tensor_parallel_shards": 1,
        "max_batch_size": 1,
        **stated(config, "use_parallel_residual", "tie_word_embeddings", "rope_scaling"),
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes; run side by side, the sublayers share one norm."""
    parallel = model.get("use_parallel_residual", False)
    return decoder_spec(
        "stablelm",
        model,
        norm="layer",
        norm_eps=model["layer_norm_eps"],
        norm_bias=True,
        parallel_residual=parallel,
        shared_norm=parallel,
        qkv_bias=model["use_qkv_bias"],
        rotary_dim=int(model["head_dim"] * model["partial_rotary_factor"]),
    )


FAMILY = Family(
    model_type="stablelm",
    architectures=("StableLmForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=decoder_parameters,
)
