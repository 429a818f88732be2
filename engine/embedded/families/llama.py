"""Llama 2, 3 and 3.x, and the models built like them: SmolLM, TinyLlama, with biases Granite 3B Code."""

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
_DEFAULTS = {"rms_norm_eps": 1e-6}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's LlamaConfig, and the biases, which it does not have."""
    config = {**_DEFAULTS, **config}
    refuse(config, "Llama", hidden_act="silu", partial_rotary_factor=1.0)
    return {
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_hidden_layers": config["num_hidden_layers"],
        "rms_norm_eps": config["rms_norm_eps"],
        "vocab_size": config["vocab_size"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "position_embedding_base": config.get("rope_theta", 10000.0),
        "rope_scaling": config.get("rope_scaling"),
        **context_sizes(config),
        "num_key_value_heads": key_value_heads(config),
        "head_dim": head_dim(config),
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "max_batch_size": 1,
        "disaggregation": False,
        **stated(config, "attention_bias", "mlp_bias"),
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    attention = model.get("attention_bias", False)
    return decoder_spec(
        "llama",
        model,
        qkv_bias=attention,
        attention_out_bias=attention,
        mlp_bias=model.get("mlp_bias", False),
    )


FAMILY = Family(
    model_type="llama",
    architectures=("LlamaForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=decoder_parameters,
)
