"""Gemma 3: text models, and the text part of those that also see.

Sandwich norms stored as 1 + w, an RMS norm over each query and key head, five layers with a
sliding window to one without, and a rope base of its own for each of the two kinds.
"""

from typing import Any

from engine.embedded.families.base import JSON, SANDWICH_NAMES, Family, Names, parameters_named
from engine.embedded.families.common import checked_layer_types, refuse
from engine.embedded.families.rope import rope_scaling
from engine.embedded.spec import DecoderSpec, LayerSpec
from engine.model.config import normalise

# mlc_llm's Gemma3TextConfig names these; every other key of the source goes to its `kwargs`.
_TEXT_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "attention_bias",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "hidden_activation",
    "query_pre_attn_scalar",
)
_MOVED = ("rope_theta", "rope_scaling", "vocab_size")
# What transformers takes where config.json says nothing; the text_config of a multimodal model says little.
_DEFAULTS = {
    "attention_bias": False,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "vocab_size": 262208,
    "sliding_window": 4096,
    "max_position_embeddings": 131072,
}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's Gemma3Config for a text-only model."""
    if "text_config" in config:
        config = normalise(config["text_config"])
    config = {**_DEFAULTS, **config}
    refuse(
        config,
        "Gemma 3",
        attention_bias=False,
        hidden_activation="gelu_pytorch_tanh",
        use_bidirectional_attention=False,
        partial_rotary_factor=1.0,
    )
    # 0 is none, as null is.
    softcaps = ("attn_logit_softcapping", "final_logit_softcapping")
    refuse({key: config.get(key) or None for key in softcaps}, "Gemma 3", **dict.fromkeys(softcaps))
    text = {k: config.get(k) for k in _TEXT_FIELDS}
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers"):
        text[name] = config[name]
    context = config["max_position_embeddings"]
    window = config.get("sliding_window") or -1
    return {
        "text_config": text
        | {
            "position_embedding_base": config.get("rope_theta", 1000000.0),
            "rope_scaling": config.get("rope_scaling"),
            "context_window_size": context,
            "prefill_chunk_size": min(context, 8192),
            "sliding_window_size": window,
            "kwargs": {k: v for k, v in config.items() if k not in (*_TEXT_FIELDS, *_MOVED)},
        },
        "vocab_size": config["vocab_size"],
        "tensor_parallel_shards": 1,
        "max_batch_size": 1,
        "context_window_size": context,
        "sliding_window_size": -1,
        "prefill_chunk_size": min(context, 8192),
        "is_text_model": True,
    }


def _is_sliding(text: JSON) -> list[bool]:
    """Which layers have a window: `layer_types`, or every layer but each `sliding_window_pattern`th."""
    rest = text["kwargs"]
    count = text["num_hidden_layers"]
    if types := checked_layer_types(rest.get("layer_types"), count):
        return [kind == "sliding_attention" for kind in types]
    pattern = rest.get("sliding_window_pattern") or rest.get("_sliding_window_pattern") or 6
    return [(i + 1) % pattern != 0 for i in range(count)]


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes.

    Local layers use `rope_local_base_freq` and no scaling, as in transformers; mlc_llm gives
    every layer the global base, which is wrong.
    """
    text = model["text_config"]
    theta = float(text["position_embedding_base"])
    full = LayerSpec(
        rope_theta=theta, rope_scaling=rope_scaling(text["rope_scaling"], text["head_dim"], theta)
    )
    window = text["sliding_window_size"]
    local = LayerSpec(
        rope_theta=float(text["kwargs"].get("rope_local_base_freq", 10000.0)),
        window=window if window > 0 else None,
    )
    return DecoderSpec(
        model_type="gemma3_text",
        vocab_size=model["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_attention_heads=text["num_attention_heads"],
        num_key_value_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"],
        layers=tuple(local if sliding else full for sliding in _is_sliding(text)),
        activation="gelu_tanh",
        norm_eps=text["rms_norm_eps"],
        attention_scale=float(text["query_pre_attn_scalar"] ** -0.5),
        rotary_dim=text["head_dim"],
        embedding_scale=float(text["hidden_size"] ** 0.5),
        tie_word_embeddings=text["kwargs"].get("tie_word_embeddings", True),
        norm_placement="sandwich",
        qk_norm="head",
        qkv_layout="apart",
        norm_plus_one=True,
    )


def _stored(given: str | tuple[str, ...]) -> tuple[str, ...]:
    """MLC keeps the name that the text model has inside a multimodal one."""
    stored, *sources = (given,) if isinstance(given, str) else given
    return (f"language_model.{stored}", *(sources or [stored]))


NAMES: Names = {role: _stored(given) for role, given in SANDWICH_NAMES.items()}

FAMILY = Family(
    model_type="gemma3_text",
    architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    aliases=("gemma3",),
    model_config=model_config,
    spec=spec,
    parameters=parameters_named(NAMES),
)
