"""What the kernels share: heads and window, the mask, readers of keys and values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels.arithmetic import tanh

NONE = -1e30
LOG2_E = 1.4426950408889634

Element = Callable[[Any, Any, Any], Any]
"""(index of a key in its sequence, head, element) -> its value."""


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Heads and window of the attention layers; `dtype` is that of queries, keys and values.

    `window` is the one window in tokens that windowed layers have, None if no layer has one.
    `softcap` bounds the scaled scores of all layers to +-softcap.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    window: int | None
    softcap: float | None = None
    page_size: int = 16

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.num_heads // self.num_kv_heads


def score(product: Any, sm_scale: Any, shape: AttentionShape) -> Any:
    """The score in base 2 of a query with a key, before the mask: what exp2 takes.

    Softcapping is Gemma 2's: softcap * tanh(scaled product / softcap).
    """
    if shape.softcap is None:
        return product * T.abs(sm_scale) * T.float32(LOG2_E)
    capped = tanh(product * T.abs(sm_scale) / T.float32(shape.softcap))
    return capped * T.float32(shape.softcap * LOG2_E)


def visible(key_position: Any, query_position: Any, sm_scale: Any, shape: AttentionShape) -> Any:
    """The mask, as a boolean expression."""
    causal = key_position <= query_position
    if shape.window is None:
        return causal
    near = query_position - key_position < shape.window
    return T.And(causal, T.Or(sm_scale > T.float32(0), near))


def first_visible(query_position: Any, key_start: Any, sm_scale: Any, shape: AttentionShape) -> Any:
    """The index of the first key that the query at `query_position` may see."""
    if shape.window is None:
        return T.int32(0)
    from_window = T.max(T.int32(0), query_position - key_start - shape.window + 1)
    return T.if_then_else(sm_scale > T.float32(0), T.int32(0), from_window)


def page_element(pages: Any, page_values: Any, first_page: Any, part: int, page_size: int) -> Element:
    """Keys (part 0) or values (part 1) of the sequence whose page list starts at `first_page`."""

    def read(j: Any, head: Any, x: Any) -> Any:
        page = page_values[first_page + j // page_size]
        return T.Cast("float32", pages[page, part, head, j % page_size, x])

    return read


def flat_element(buffer: Any, start: Any) -> Element:
    """Keys or values that lie one after another from row `start`."""
    return lambda j, head, x: T.Cast("float32", buffer[start + j, head, x])


def paged_length(page_indptr: Any, last_page_length: Any, b: Any, page_size: int) -> Any:
    """How many keys sequence `b` has in its pages."""
    pages = page_indptr[b + 1] - page_indptr[b]
    return T.if_then_else(pages > 0, (pages - 1) * page_size + last_page_length[b], T.int32(0))
