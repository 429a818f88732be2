"""What the kernels share: heads and window, the mask, readers of keys and values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels.arithmetic import tanh
from engine.embedded.kernels.simd import load
from engine.embedded.spec import RollingCache

NONE = -1e30
LOG2_E = 1.4426950408889634

Element = Callable[..., Any]
"""(index of a key in its sequence, head, element) -> its value in float32; with a number of lanes as the
fourth argument, that many neighbours from there on, as they are stored."""


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Heads and window of the attention layers; `dtype` is that of queries, keys and values.

    `window` is the one window in tokens that windowed layers have, None if no layer has one.
    `softcap` bounds the scaled scores of all layers to +-softcap.

    With a `rolling` cache, the kernels rotate queries and keys themselves, whole heads with the base
    `rope_theta`: positions are places in the cache, which a key does not keep. Places count kept tokens
    from the first sink on, so those of a query and of a key in the window differ by their distance.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    window: int | None
    softcap: float | None = None
    rolling: RollingCache | None = None
    rope_theta: float = 10000.0
    page_size: int = 16

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.num_heads // self.num_kv_heads

    @property
    def spans(self) -> int:
        """How many ranges of keys a kernel visits: with a rolling cache sinks, then window."""
        return 1 if self.rolling is None else 2


def score(product: Any, sm_scale: Any, shape: AttentionShape) -> Any:
    """The score in base 2 of a query with a key, before the mask: what exp2 takes.

    Softcapping is Gemma 2's: softcap * tanh(scaled product / softcap).
    """
    if shape.softcap is None:
        return product * T.abs(sm_scale) * T.float32(LOG2_E)
    capped = tanh(product * T.abs(sm_scale) / T.float32(shape.softcap))
    return capped * T.float32(shape.softcap * LOG2_E)


def visible(span: Any, key_position: Any, query_position: Any, sm_scale: Any, shape: AttentionShape) -> Any:
    """The mask of a key of that span, as a boolean expression."""
    causal = key_position <= query_position
    if shape.rolling is not None:
        near = query_position - key_position <= shape.rolling.window - shape.rolling.sinks
        return T.And(causal, T.if_then_else(span == 0, key_position < shape.rolling.sinks, near))
    if shape.window is None:
        return causal
    near = query_position - key_position < shape.window
    return T.And(causal, T.Or(sm_scale > T.float32(0), near))


def first_key(
    span: Any, lowest: Any, key_start: Any, key_length: Any, sm_scale: Any, shape: AttentionShape
) -> Any:
    """The index of the first key of that span that queries from position `lowest` on may see."""
    if shape.rolling is not None:
        sinks = T.max(T.int32(0), shape.rolling.sinks - key_start)
        oldest = lowest - key_start - (shape.rolling.window - shape.rolling.sinks)
        return T.if_then_else(span == 0, T.int32(0), T.min(key_length, T.max(sinks, oldest)))
    if shape.window is None:
        return T.min(key_length, T.int32(0))
    from_window = T.max(T.int32(0), lowest - key_start - shape.window + 1)
    return T.min(key_length, T.if_then_else(sm_scale > T.float32(0), T.int32(0), from_window))


def end_of_keys(
    span: Any, first: Any, highest: Any, key_start: Any, key_length: Any, shape: AttentionShape
) -> Any:
    """The index behind the last key of that span that queries up to `highest` may see, at least `first`."""
    end = T.min(key_length, highest - key_start + 1)
    if shape.rolling is not None:
        end = T.if_then_else(span == 0, T.min(end, shape.rolling.sinks - key_start), end)
    return T.max(first, end)


def page_element(
    pages: Any, page_values: Any, first_page: Any, part: int, page_size: int, slot: Callable[[Any], Any]
) -> Element:
    """Keys (part 0) or values (part 1) of the sequence whose page list starts at `first_page`.

    `slot` is where in those pages a key lies, by its index.
    """

    def read(j: Any, head: Any, x: Any, lanes: int | None = None) -> Any:
        page = page_values[first_page + slot(j) // page_size]
        return _read(pages, (page, part, head, slot(j) % page_size, x), lanes)

    return read


def flat_element(buffer: Any, start: Any) -> Element:
    """Keys or values that lie one after another from row `start`."""

    def read(j: Any, head: Any, x: Any, lanes: int | None = None) -> Any:
        return _read(buffer, (start + j, head, x), lanes)

    return read


def _read(buffer: Any, index: tuple[Any, ...], lanes: int | None) -> Any:
    return T.Cast("float32", buffer[index]) if lanes is None else load(buffer, *index, lanes=lanes)


def paged_length(page_indptr: Any, last_page_length: Any, b: Any, page_size: int) -> Any:
    """How many slots sequence `b` has filled in its pages."""
    pages = page_indptr[b + 1] - page_indptr[b]
    return T.if_then_else(pages > 0, (pages - 1) * page_size + last_page_length, T.int32(0))
