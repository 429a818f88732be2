"""`rope_scaling` of a model_config as a RopeScaling."""

from collections.abc import Mapping
from typing import Any

from engine.embedded.spec import RopeScaling
from engine.errors import UsageError

SUPPORTED = ("linear", "llama3")


def rope_scaling(scaling: Mapping[str, Any] | None) -> RopeScaling | None:
    """The scaling that `scaling` (normalised; None for none) states.

    Raises UsageError for a rope_type this compiler has no formula for.
    """
    if scaling is None:
        return None
    rope_type = scaling.get("rope_type")
    if rope_type not in SUPPORTED:
        raise UsageError(
            f"rope_scaling of type {rope_type!r} is not supported.",
            why=f"Supported are {', '.join(SUPPORTED)} and none.",
            remedy="Use the mlc_llm backend for this model.",
        )
    if rope_type == "linear":
        return RopeScaling(rope_type="linear", factor=float(scaling["factor"]))
    return RopeScaling(
        rope_type="llama3",
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_max_position_embeddings=int(scaling["original_max_position_embeddings"]),
    )
