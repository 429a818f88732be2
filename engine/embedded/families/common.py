"""What family files share: checks of a config, and the spec of a model_config in the usual words."""

from collections.abc import Sequence
from typing import Any

from engine.embedded.families.base import JSON
from engine.embedded.families.rope import rope_scaling
from engine.embedded.spec import Activation, DecoderSpec, LayerSpec
from engine.errors import UsageError

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""The activations of transformers' `ACT2FN` by their names in a config."""


def refuse(config: JSON, family: str, **wanted: Any) -> None:
    """Raise UsageError unless each key of `config` has the wanted value, or none.

    For settings that change what the model computes and that the family's decoder has no place for.
    """
    for key, value in wanted.items():
        found = config.get(key)
        if found is not None and found != value:
            raise UsageError(
                f"config.json says {key} = {_said(found)}; a {family} model that can be exported has "
                f"{_said(value)}.",
                remedy="Check config.json against the model this one was made from.",
            )


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else repr(value)


def activation(name: str) -> Activation:
    """The activation that a config calls `name`; UsageError for one that no kernel computes."""
    if found := ACTIVATIONS.get(name):
        return found
    raise UsageError(
        f"config.json names the activation {name!r}, which is not supported.",
        why=f"Supported are {', '.join(ACTIVATIONS)}.",
        remedy="Use the mlc_llm backend for this model, if that supports it.",
    )


def check_context(spec: DecoderSpec, context: int) -> None:
    """Raise UsageError for a context of more tokens than a decoder has learned positions for."""
    if spec.position_embeddings == "learned" and context > spec.max_positions:
        raise UsageError(
            f"A context of {context} tokens is above the {spec.max_positions} positions of this model.",
            why="It learned an embedding for each position, and has none for later ones.",
            remedy=f"Choose a context_window_size of {spec.max_positions} or less.",
        )


def head_dim(config: JSON) -> int:
    """The stated head_dim, else hidden_size over the heads, which must divide it."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if found := config.get("head_dim"):
        return int(found)
    if hidden % heads:
        raise ValueError(f"hidden_size = {hidden} is no multiple of num_attention_heads = {heads}")
    return int(hidden // heads)


def key_value_heads(config: JSON) -> int:
    """The stated num_key_value_heads, else as many as there are heads."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def context_sizes(config: JSON, context: int | None = None) -> dict[str, int]:
    """Context (by default max_position_embeddings) and prefill chunk, before either is overridden."""
    found = config["max_position_embeddings"] if context is None else context
    return {"context_window_size": found, "prefill_chunk_size": min(found, 8192)}


def stated(config: JSON, *keys: str) -> dict[str, Any]:
    """Those of `keys` that `config` sets: mlc_llm's model_config has no place for them, ours needs them."""
    return {key: config[key] for key in keys if config.get(key)}


def windowed(config: JSON) -> dict[str, Any]:
    """The `sliding_window` of every layer of `config`, if it ever hides a token."""
    window = config.get("sliding_window")
    return {"sliding_window": window} if window and window < config["max_position_embeddings"] else {}


def checked_layer_types(types: Sequence[str] | None, count: int) -> Sequence[str] | None:
    """`types` as they are; ValueError unless they name each of `count` layers, in words known here."""
    if types and len(types) != count:
        raise ValueError(f"layer_types names {len(types)} layers, num_hidden_layers is {count}")
    if unknown := sorted({str(kind) for kind in types or ()} - {"full_attention", "sliding_attention"}):
        raise ValueError(f"layer_types has {', '.join(unknown)}, which no layer here can be")
    return types


def decoder_spec(model_type: str, model: JSON, **own: Any) -> DecoderSpec:
    """The DecoderSpec of a model_config that says things as Llama's does; `own` fields come first.

    Layers have the window `sliding_window`, all of them or those that `layer_types` says.
    """
    dim = model["head_dim"]
    rotary_dim = int(own.get("rotary_dim") or dim)
    theta = model["position_embedding_base"] if "position_embedding_base" in model else model["rope_theta"]
    scaling = rope_scaling(model.get("rope_scaling"), rotary_dim, float(theta))
    types = checked_layer_types(model.get("layer_types"), model["num_hidden_layers"])
    types = types or ["sliding_attention"] * model["num_hidden_layers"]
    layers = tuple(
        LayerSpec(
            rope_theta=float(theta),
            rope_scaling=scaling,
            window=model.get("sliding_window") if kind == "sliding_attention" else None,
        )
        for kind in types
    )
    usual = {
        "vocab_size": model["vocab_size"],
        "hidden_size": model["hidden_size"],
        "intermediate_size": model["intermediate_size"],
        "num_attention_heads": model["num_attention_heads"],
        "num_key_value_heads": model.get("num_key_value_heads", model["num_attention_heads"]),
        "head_dim": dim,
        "layers": layers,
        "activation": "silu",
        "norm_eps": own["norm_eps"] if "norm_eps" in own else model["rms_norm_eps"],
        "attention_scale": float(dim**-0.5),
        "rotary_dim": rotary_dim,
        "tie_word_embeddings": bool(model.get("tie_word_embeddings", False)),
    }
    return DecoderSpec(model_type=model_type, **(usual | own))
