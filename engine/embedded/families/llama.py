"""Llama 2, 3 and 3.x, and the models built like them (SmolLM, TinyLlama)."""

from typing import Any

from engine.embedded.families.base import JSON, Family, decoder_parameters
from engine.embedded.families.rope import rope_scaling
from engine.embedded.spec import DecoderSpec, LayerSpec
from engine.errors import UsageError


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's LlamaConfig."""
    for bias in ("attention_bias", "mlp_bias"):
        if config.get(bias):
            raise UsageError(
                f"config.json says {bias} = true, which Llama packages of MLC have no place for.",
                remedy="Only Llama models without biases can be exported.",
            )
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise UsageError(
            f"config.json says hidden_act = {activation!r}; a Llama model has 'silu'.",
            remedy="Check config.json against the model this one was made from.",
        )
    heads = config["num_attention_heads"]
    context = config["max_position_embeddings"]
    return {
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_attention_heads": heads,
        "num_hidden_layers": config["num_hidden_layers"],
        "rms_norm_eps": config["rms_norm_eps"],
        "vocab_size": config["vocab_size"],
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "position_embedding_base": config.get("rope_theta", 10000.0),
        "rope_scaling": config.get("rope_scaling"),
        "context_window_size": context,
        "prefill_chunk_size": min(context, 8192),
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "max_batch_size": 1,
        "disaggregation": False,
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    layer = LayerSpec(
        rope_theta=float(model["position_embedding_base"]),
        rope_scaling=rope_scaling(model["rope_scaling"]),
    )
    return DecoderSpec(
        model_type="llama",
        vocab_size=model["vocab_size"],
        hidden_size=model["hidden_size"],
        intermediate_size=model["intermediate_size"],
        num_attention_heads=model["num_attention_heads"],
        num_key_value_heads=model["num_key_value_heads"],
        head_dim=model["head_dim"],
        layers=(layer,) * model["num_hidden_layers"],
        activation="silu",
        norm_eps=model["rms_norm_eps"],
        attention_scale=float(model["head_dim"] ** -0.5),
        rotary_dim=model["head_dim"],
        tie_word_embeddings=model["tie_word_embeddings"],
    )


FAMILY = Family(
    model_type="llama",
    architectures=("LlamaForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=decoder_parameters,
)
