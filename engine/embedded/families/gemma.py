"""Gemma and Gemma 2: norms stored as 1 + w, scaled embeddings that are the head as well.

Gemma 2 adds a norm behind each sublayer, softcaps of attention scores and of logits, and a window on
every other layer, the first included.
"""

from typing import Any

from engine.embedded.families.base import JSON, Family, decoder_parameters
from engine.embedded.families.common import context_sizes, decoder_spec, refuse, stated
from engine.embedded.spec import DecoderSpec

# What transformers takes where config.json says nothing.
_DEFAULTS = {"num_key_value_heads": 16, "head_dim": 256, "rms_norm_eps": 1e-6}
_DEFAULTS_2 = {
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's GemmaConfig."""
    config = {**_DEFAULTS, **config}
    # Early configs say "gelu"; what was trained, and what transformers and mlc_llm compute, is with tanh.
    act = config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    if act != "gelu":
        refuse({"hidden_activation": act}, "Gemma", hidden_activation="gelu_pytorch_tanh")
    refuse(
        config,
        "Gemma",
        attention_bias=False,
        use_bidirectional_attention=False,
        partial_rotary_factor=1.0,
    )
    return {
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "attention_bias": False,
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "num_hidden_layers": config["num_hidden_layers"],
        "rms_norm_eps": config["rms_norm_eps"],
        "vocab_size": config["vocab_size"],
        "hidden_activation": act,
        "position_embedding_base": config.get("rope_theta", 10000.0),
        **context_sizes(config),
        "tensor_parallel_shards": 1,
        "max_batch_size": 1,
        **stated(config, "rope_scaling"),
        **({"tie_word_embeddings": False} if config.get("tie_word_embeddings") is False else {}),
    }


def model_config_2(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's Gemma2Config; `layer_types` where the layers do not take turns."""
    config = {**_DEFAULTS_2, **config}
    model = model_config(config)
    types = config.get("layer_types")
    return {
        **model,
        "attn_logit_softcapping": config["attn_logit_softcapping"],
        "final_logit_softcapping": config["final_logit_softcapping"],
        "query_pre_attn_scalar": config["query_pre_attn_scalar"],
        "sliding_window": config["sliding_window"],
        **({"layer_types": types} if types and types != _turns(len(types)) else {}),
    }


def _turns(count: int) -> list[str]:
    return ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]


def spec(model: JSON, model_type: str = "gemma", **own: Any) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    return decoder_spec(
        model_type,
        {"tie_word_embeddings": True, **model},
        activation="gelu_tanh",
        embedding_scale=float(model["hidden_size"] ** 0.5),
        norm_plus_one=True,
        **own,
    )


def spec_2(model: JSON) -> DecoderSpec:
    """The decoder that `model_config_2` describes."""
    return spec(
        {"layer_types": _turns(model["num_hidden_layers"]), **model},
        "gemma2",
        attention_scale=float(model["query_pre_attn_scalar"] ** -0.5),
        norm_placement="sandwich",
        attention_softcap=model["attn_logit_softcapping"],
        logit_softcap=model["final_logit_softcapping"],
    )


FAMILY = Family(
    model_type="gemma",
    architectures=("GemmaForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=decoder_parameters,
)

FAMILY_2 = Family(
    model_type="gemma2",
    architectures=("Gemma2ForCausalLM",),
    model_config=model_config_2,
    spec=spec_2,
    parameters=decoder_parameters,
)
