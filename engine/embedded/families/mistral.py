"""Mistral 7B and what is built like it.

Where the model has a sliding window, each layer masks it exactly, as transformers does, and the
context is a plain one. mlc_llm instead rolls its cache over that window and keeps the first four
tokens, which gives other logits, and WebLLM refuses a model that states both sizes. The rolling cache
is what one gets who asks for a `sliding_window_size`; no layer has a window of its own then.
"""

from typing import Any

from engine.embedded.families.base import JSON, Family, decoder_parameters
from engine.embedded.families.common import (
    context_sizes,
    decoder_spec,
    head_dim,
    key_value_heads,
    refuse,
    stated,
    windowed,
)
from engine.embedded.spec import DecoderSpec, RollingCache
from engine.errors import UsageError

# What transformers takes where config.json says nothing.
_DEFAULTS = {"rms_norm_eps": 1e-6, "num_key_value_heads": 8, "sliding_window": 4096}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's MistralConfig, and the layers' `sliding_window`."""
    config = {**_DEFAULTS, **config}
    refuse(config, "Mistral", hidden_act="silu", partial_rotary_factor=1.0)
    return {
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_hidden_layers": config["num_hidden_layers"],
        "rms_norm_eps": config["rms_norm_eps"],
        "vocab_size": config["vocab_size"],
        "position_embedding_base": config.get("rope_theta", 10000.0),
        "num_key_value_heads": key_value_heads(config),
        "head_dim": head_dim(config),
        **context_sizes(config),
        "sliding_window_size": -1,
        "attention_sink_size": 4,
        "tensor_parallel_shards": 1,
        "max_batch_size": 1,
        **windowed(config),
        **stated(config, "tie_word_embeddings", "rope_scaling"),
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    window = model["sliding_window_size"]
    if window <= 0:
        return decoder_spec("mistral", model)
    if model.get("rope_scaling"):
        raise UsageError(
            f"A rolling cache of {window} tokens is not possible with this model's rope_scaling.",
            why="Attention rotates by places in the cache then, which needs the plain frequencies.",
            remedy="Give a context_window_size in place of the sliding_window_size.",
        )
    rolling = RollingCache(window=window, sinks=model["attention_sink_size"])
    return decoder_spec("mistral", {**model, "sliding_window": None}, rolling=rolling)


FAMILY = Family(
    model_type="mistral",
    architectures=("MistralForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=decoder_parameters,
    can_roll=True,
)
