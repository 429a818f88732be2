"""What the attention kernels share: the mask, the readers of keys and values, the signatures.

The kernels go to `vm.builtin.paged_attention_kv_cache_create` in place of TVM's own and keep its
calling convention (`runtime/vm/attn_backend.h`). They are told absolute positions, so one mask serves
every layer and every call: key p is visible to query q if p <= q and, in a layer with a window W,
q - p < W. The runtime has no argument for "this layer has a window": the sign of `sm_scale` says it.

State is kept in base 2 as (maximum, sum), so that lse = maximum + log2(sum); a row that sees no key
has sum 0, output 0 and lse NONE, which the merge weighs with 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.script import tirx as T

NONE = -1e30
LOG2_E = 1.4426950408889634

Element = Callable[[Any, Any, Any], Any]
"""(index of a key in its sequence, head, element) -> its value."""


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Heads and window of the attention layers; `dtype` is that of queries, keys and values.

    `window` is the one window in tokens that windowed layers have, None if no layer has one.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    window: int | None
    page_size: int = 16

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.num_heads // self.num_kv_heads


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


def ragged_prefill(shape: AttentionShape, body: Any) -> tvm.tirx.PrimFunc:
    """Queries against the keys of the same chunk, around `body(q, q_indptr, b -> keys, ...)`."""
    hq, hkv, d, dtype = shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.dtype

    def keys(k: Any, v: Any, k_indptr: Any) -> Any:
        return lambda b: (
            k_indptr[b + 1] - k_indptr[b],
            flat_element(k, k_indptr[b]),
            flat_element(v, k_indptr[b]),
        )

    @T.prim_func(private=True, s_tir=True)
    def func(
        vq: T.handle,
        vqi: T.handle,
        vk: T.handle,
        vv: T.handle,
        vki: T.handle,
        vqp: T.handle,
        vkp: T.handle,
        vo: T.handle,
        vl: T.handle,
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ):
        T.func_attr({"tirx.is_scheduled": True})
        B = T.int32()
        n = T.int32()
        m = T.int32()
        qi_offset = T.int32()
        ki_offset = T.int32()
        qp_offset = T.int32()
        kp_offset = T.int32()
        q = T.match_buffer(vq, (n, hq, d), dtype)
        qi = T.match_buffer(vqi, (B + 1,), "int32", elem_offset=qi_offset)
        k = T.match_buffer(vk, (m, hkv, d), dtype)
        v = T.match_buffer(vv, (m, hkv, d), dtype)
        ki = T.match_buffer(vki, (B + 1,), "int32", elem_offset=ki_offset)
        qp = T.match_buffer(vqp, (n,), "int32", elem_offset=qp_offset)
        kp = T.match_buffer(vkp, (B,), "int32", elem_offset=kp_offset)
        o = T.match_buffer(vo, (n, hq, d), dtype)
        lse = T.match_buffer(vl, (n, hq), "float32")
        body(q, qi, keys(k, v, ki), qp, kp, o, lse, B, n, sm_scale)

    return func


def paged_prefill(shape: AttentionShape, body: Any) -> tvm.tirx.PrimFunc:
    """Queries against keys in the cache, around the same `body` as the ragged kernel's."""
    hq, hkv, d, dtype, ps = (
        shape.num_heads,
        shape.num_kv_heads,
        shape.head_dim,
        shape.dtype,
        shape.page_size,
    )

    def keys(pages: Any, indptr: Any, values: Any, last: Any) -> Any:
        return lambda b: (
            paged_length(indptr, last, b, ps),
            page_element(pages, values, indptr[b], 0, ps),
            page_element(pages, values, indptr[b], 1, ps),
        )

    @T.prim_func(private=True, s_tir=True)
    def func(
        vq: T.handle,
        vqi: T.handle,
        vp: T.handle,
        vpi: T.handle,
        vpv: T.handle,
        vll: T.handle,
        vkp: T.handle,
        vqp: T.handle,
        vo: T.handle,
        vl: T.handle,
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ):
        T.func_attr({"tirx.is_scheduled": True})
        B = T.int32()
        n = T.int32()
        num_pages = T.int32()
        max_pages = T.int32()
        pages_offset = T.int64()
        qi_offset = T.int32()
        pi_offset = T.int32()
        pv_offset = T.int32()
        ll_offset = T.int32()
        qp_offset = T.int32()
        kp_offset = T.int32()
        q = T.match_buffer(vq, (n, hq, d), dtype)
        qi = T.match_buffer(vqi, (B + 1,), "int32", elem_offset=qi_offset)
        p = T.match_buffer(vp, (max_pages, 2, hkv, ps, d), dtype, elem_offset=pages_offset)
        pi = T.match_buffer(vpi, (B + 1,), "int32", elem_offset=pi_offset)
        pv = T.match_buffer(vpv, (num_pages,), "int32", elem_offset=pv_offset)
        ll = T.match_buffer(vll, (B,), "int32", elem_offset=ll_offset)
        kp = T.match_buffer(vkp, (B,), "int32", elem_offset=kp_offset)
        qp = T.match_buffer(vqp, (n,), "int32", elem_offset=qp_offset)
        o = T.match_buffer(vo, (n, hq, d), dtype)
        lse = T.match_buffer(vl, (n, hq), "float32")
        body(q, qi, keys(p, pi, pv, ll), qp, kp, o, lse, B, n, sm_scale)

    return func


def paged_decode(shape: AttentionShape, body: Any) -> tvm.tirx.PrimFunc:
    """One query a sequence against keys in the cache, around `body(q, b -> keys, ...)`."""
    hq, hkv, d, dtype, ps = (
        shape.num_heads,
        shape.num_kv_heads,
        shape.head_dim,
        shape.dtype,
        shape.page_size,
    )

    def keys(pages: Any, indptr: Any, values: Any, last: Any) -> Any:
        return lambda b: (
            paged_length(indptr, last, b, ps),
            page_element(pages, values, indptr[b], 0, ps),
            page_element(pages, values, indptr[b], 1, ps),
        )

    @T.prim_func(private=True, s_tir=True)
    def func(
        vq: T.handle,
        vp: T.handle,
        vpi: T.handle,
        vpv: T.handle,
        vll: T.handle,
        vkp: T.handle,
        vqp: T.handle,
        vo: T.handle,
        vl: T.handle,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ):
        T.func_attr({"tirx.is_scheduled": True})
        B = T.int32()
        num_pages = T.int32()
        max_pages = T.int32()
        pages_offset = T.int64()
        pi_offset = T.int32()
        pv_offset = T.int32()
        ll_offset = T.int32()
        qp_offset = T.int32()
        kp_offset = T.int32()
        q = T.match_buffer(vq, (B, hq, d), dtype)
        p = T.match_buffer(vp, (max_pages, 2, hkv, ps, d), dtype, elem_offset=pages_offset)
        pi = T.match_buffer(vpi, (B + 1,), "int32", elem_offset=pi_offset)
        pv = T.match_buffer(vpv, (num_pages,), "int32", elem_offset=pv_offset)
        ll = T.match_buffer(vll, (B,), "int32", elem_offset=ll_offset)
        kp = T.match_buffer(vkp, (B,), "int32", elem_offset=kp_offset)
        qp = T.match_buffer(vqp, (B,), "int32", elem_offset=qp_offset)
        o = T.match_buffer(vo, (B, hq, d), dtype)
        lse = T.match_buffer(vl, (B, hq), "float32")
        body(q, keys(p, pi, pv, ll), qp, kp, o, lse, B, sm_scale)

    return func
