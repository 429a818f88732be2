"""`rope_scaling` of a model_config as a RopeScaling."""

from collections.abc import Mapping
from math import ceil, floor, log, pi, sqrt
from typing import Any

from engine.embedded.spec import RopeScaling
from engine.errors import UsageError

SUPPORTED = ("linear", "dynamic", "llama3", "yarn", "longrope")


def rope_scaling(scaling: Mapping[str, Any] | None, rotary_dim: int, theta: float) -> RopeScaling | None:
    """The scaling that `scaling` (normalised; None for none) states for heads with `rotary_dim` rotated.

    `theta` is the layer's rope base. Dynamic scaling is none within max_position_embeddings, beyond which no
    context is without a warning.
    Raises UsageError for a rope_type this compiler has no formula for.
    """
    if scaling is None or scaling.get("rope_type") == "dynamic":
        return None
    rope_type = scaling.get("rope_type")
    if rope_type not in SUPPORTED:
        raise UsageError(
            f"rope_scaling of type {rope_type!r} is not supported.",
            why=f"Supported are {', '.join(SUPPORTED)} and none.",
            remedy="Use the mlc_llm backend for this model, if that supports it, or choose another model.",
        )
    if rope_type == "linear":
        return RopeScaling(rope_type="linear", factor=float(scaling["factor"]))
    if rope_type == "longrope":
        return _longrope(scaling, rotary_dim)
    if rope_type == "yarn":
        return _yarn(scaling, rotary_dim, theta)
    return RopeScaling(
        rope_type="llama3",
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_max_position_embeddings=int(scaling["original_max_position_embeddings"]),
    )


def _yarn(scaling: Mapping[str, Any], rotary_dim: int, theta: float) -> RopeScaling:
    """As `_compute_yarn_parameters` of transformers, which YaRN (arXiv 2309.00071) describes.

    A pair that turns `beta_fast` times or more within the original context stays as it is, one that turns
    `beta_slow` times or less is slowed down by `factor`; between them lies a ramp over the pairs.
    """
    original = int(scaling["original_max_position_embeddings"])
    factor = scaling.get("factor")
    factor = float(scaling["max_position_embeddings"] / original if factor is None else factor)
    turns = (scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1)
    low, high = (rotary_dim * log(original / (n * 2 * pi)) / (2 * log(theta)) for n in turns)
    if scaling.get("truncate", True):
        low, high = floor(low), ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    slowed = [min(max((pair - low) / ((high - low) or 0.001), 0), 1) for pair in range(rotary_dim // 2)]
    return RopeScaling(
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=original,
        short_factor=tuple(1 / (1 - part + part / factor) for part in slowed),
        attention_factor=_yarn_attention(scaling, factor),
    )


def _yarn_attention(scaling: Mapping[str, Any], factor: float) -> float:
    if (stated := scaling.get("attention_factor")) is not None:
        return float(stated)

    def grown(by: float) -> float:
        return 0.1 * by * log(factor) + 1 if factor > 1 else 1.0

    over, under = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return grown(over) / grown(under) if over and under else grown(1)


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
