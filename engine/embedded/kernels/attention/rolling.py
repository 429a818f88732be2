"""Rotation inside attention, for a rolling cache: by places in the cache, which keys do not keep.

Where the cache does not roll, rotation is the model's business and nothing here adds code to a kernel.
"""

import math
from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.arithmetic import cosine_and_sine, exact
from engine.embedded.kernels.attention.shape import AttentionShape, Element


def query_place(span: Any, position: Any, shape: AttentionShape) -> Any:
    """Where a query is rotated to for keys of that span: for sinks no farther than the cache is long."""
    if shape.rolling is None:
        return position
    return T.if_then_else(span == 0, T.min(position, shape.rolling.window), position)


def aim_of(shape: AttentionShape) -> Any:
    """aim(turn, place, x): cosine and sine for element x at `place` in `turn` [0] and [1], float32 [3].

    The angle is place * rope_theta^(-2 pair / head_dim), the pair being x modulo head_dim / 2.
    """
    exponent = -2 * math.log2(shape.rope_theta) / shape.head_dim
    pairs = shape.head_dim // 2

    @script.macro
    def aim(turn, place, x):
        if shape.rolling is not None:
            cosine_and_sine(
                turn,
                T.Cast("float32", place) * T.exp2(T.Cast("float32", x % pairs) * exact(exponent)),
            )

    return aim


def turned(read: Element, at: tuple[Any, Any, Any], turn: Any, shape: AttentionShape) -> Any:
    """The element that `read` gives for `at`, rotated as `turn` says where the cache rolls."""
    if shape.rolling is None:
        return read(*at)
    (j, head, x), half = at, shape.head_dim // 2
    partner = read(j, head, (x + half) % shape.head_dim)
    return read(*at) * turn[0] + T.if_then_else(x < half, -partner, partner) * turn[1]
