"""`rope_scaling` of a model_config as a RopeScaling."""

from collections.abc import Mapping
from math import log, sqrt
from typing import Any

from engine.embedded.spec import RopeScaling
from engine.errors import UsageError

SUPPORTED = ("linear", "llama3", "longrope")


def rope_scaling(scaling: Mapping[str, Any] | None, rotary_dim: int) -> RopeScaling | None:
    """The scaling that `scaling` (normalised; None for none) states for heads with `rotary_dim` rotated.

    Raises UsageError for a rope_type this compiler has no formula for.
    """
    if scaling is None:
        return None
    rope_type = scaling.get("rope_type")
    if rope_type not in SUPPORTED:
        raise UsageError(
            f"rope_scaling of type {rope_type!r} is not supported.",
            why=f"Supported are {', '.join(SUPPORTED)} and none.",
            remedy="Use the mlc_llm backend for this model, or take rope_scaling out of config.json to "
            "export it for its original context.",
        )
    if rope_type == "linear":
        return RopeScaling(rope_type="linear", factor=float(scaling["factor"]))
    if rope_type == "longrope":
        return _longrope(scaling, rotary_dim)
    return RopeScaling(
        rope_type="llama3",
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_max_position_embeddings=int(scaling["original_max_position_embeddings"]),
    )


def _longrope(scaling: Mapping[str, Any], rotary_dim: int) -> RopeScaling:
    """As `_compute_longrope_parameters` of transformers, which LongRoPE (arXiv 2402.13753) describes."""
    original = int(scaling["original_max_position_embeddings"])
    short, long = (tuple(float(f) for f in scaling[name]) for name in ("short_factor", "long_factor"))
    for name, factors in (("short_factor", short), ("long_factor", long)):
        if len(factors) != rotary_dim // 2:
            raise ValueError(f"{name} has {len(factors)} numbers, {rotary_dim // 2} pairs are rotated")
    factor = scaling.get("factor")
    if factor is None:
        factor = scaling["max_position_embeddings"] / original
    attention = scaling.get("attention_factor")
    if attention is None:
        attention = sqrt(1 + log(factor) / log(original)) if factor > 1 else 1.0
    return RopeScaling(
        rope_type="longrope",
        factor=float(factor),
        original_max_position_embeddings=original,
        short_factor=short,
        long_factor=long,
        attention_factor=float(attention),
    )
