"""Olmo 2: norms behind the sublayers instead of before them, and over all queries and all keys."""

from typing import Any

from engine.embedded.families.base import JSON, Family, decoder_parameters
from engine.embedded.families.common import (
    activation,
    context_sizes,
    decoder_spec,
    head_dim,
    key_value_heads,
    refuse,
)
from engine.embedded.spec import DecoderSpec


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's OLMo2Config."""
    refuse(config, "Olmo 2", attention_bias=False, partial_rotary_factor=1.0)
    return {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": key_value_heads(config),
        "head_dim": head_dim(config),
        "position_embedding_base": config.get("rope_theta", 10000.0),
        "rope_scaling": config.get("rope_scaling"),
        "intermediate_size": config["intermediate_size"],
        "hidden_act": config.get("hidden_act", "silu"),
        "num_hidden_layers": config["num_hidden_layers"],
        "rms_norm_eps": config.get("rms_norm_eps", 1e-5),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        **context_sizes(config),
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "max_batch_size": 1,
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    return decoder_spec(
        "olmo2", model, activation=activation(model["hidden_act"]), norm_placement="post", qk_norm="full"
    )


FAMILY = Family(
    model_type="olmo2",
    architectures=("Olmo2ForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=decoder_parameters,
)
