"""The calling convention of the cache's attention functions, each around the body of a schedule.

A body sees queries, and for a sequence `b` a triple keys(b) = (how many, reader of keys, reader of
values), whether those lie in pages or in the chunk itself. Its arguments, of B sequences and n queries:

    q    [n, heads, head_dim] in the model dtype    qp  int32 [n]      the positions of queries
    qi   int32 [B + 1], the rows of each sequence   kp  int32 [B]      the position of each first key
    o    as q, written                              lse float32 [n, heads], written, in base 2
    sm_scale, float32: what scores are multiplied by; negative in a layer that has a window

Decode has one query a sequence, so n = B, and its body takes neither qi nor n.
"""

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.attention.shape import AttentionShape, flat_element, page_element, paged_length


def _attend(shape: AttentionShape, body: Any) -> Any:
    """What all have in common: queries with their positions, where keys begin, and the results.

    `vqi` is None where every sequence has one query.
    """
    hq, d, dtype = shape.num_heads, shape.head_dim, shape.dtype

    @script.macro
    def attend(vq, vqi, keys, vqp, vkp, vo, vl, B, n, sm_scale):
        qp_offset = T.int32()
        kp_offset = T.int32()
        q = T.match_buffer(vq, (n, hq, d), dtype)
        qp = T.match_buffer(vqp, (n,), "int32", elem_offset=qp_offset)
        kp = T.match_buffer(vkp, (B,), "int32", elem_offset=kp_offset)
        o = T.match_buffer(vo, (n, hq, d), dtype)
        lse = T.match_buffer(vl, (n, hq), "float32")
        if vqi is None:
            body(q, keys, qp, kp, o, lse, B, sm_scale)
        else:
            qi_offset = T.int32()
            qi = T.match_buffer(vqi, (B + 1,), "int32", elem_offset=qi_offset)
            body(q, qi, keys, qp, kp, o, lse, B, n, sm_scale)

    return attend


def _attend_to_pages(shape: AttentionShape, body: Any) -> Any:
    """`_attend` with the keys of the cache.

    `vll` is how many slots of the last page are filled, [B]; of a rolling cache [3, B]: that, the slot
    at which the window begins, and how many sinks lie before it.
    """
    hkv, d, dtype, ps = shape.num_kv_heads, shape.head_dim, shape.dtype, shape.page_size
    attend = _attend(shape, body)
    length_rows = () if shape.rolling is None else (3,)

    def keys(pages: Any, indptr: Any, values: Any, info: Any) -> Any:
        def of(b: Any) -> tuple[Any, Any, Any]:
            gap: Any = 0
            if shape.rolling is None:
                length = paged_length(indptr, info[b], b, ps)
            else:
                gap = info[1, b] - info[2, b]
                length = paged_length(indptr, info[0, b], b, ps) - gap

            def slot(j: Any) -> Any:
                return j if shape.rolling is None else T.if_then_else(j < info[2, b], j, j + gap)

            return (
                length,
                page_element(pages, values, indptr[b], 0, ps, slot),
                page_element(pages, values, indptr[b], 1, ps, slot),
            )

        return of

    @script.macro
    def attend_to_pages(vq, vqi, vp, vpi, vpv, vll, vkp, vqp, vo, vl, B, n, sm_scale):
        num_pages = T.int32()
        max_pages = T.int32()
        pages_offset = T.int64()
        pi_offset = T.int32()
        pv_offset = T.int32()
        ll_offset = T.int32()
        p = T.match_buffer(vp, (max_pages, 2, hkv, ps, d), dtype, elem_offset=pages_offset)
        pi = T.match_buffer(vpi, (B + 1,), "int32", elem_offset=pi_offset)
        pv = T.match_buffer(vpv, (num_pages,), "int32", elem_offset=pv_offset)
        ll = T.match_buffer(vll, (*length_rows, B), "int32", elem_offset=ll_offset)
        attend(vq, vqi, keys(p, pi, pv, ll), vqp, vkp, vo, vl, B, n, sm_scale)

    return attend_to_pages


def ragged_prefill(shape: AttentionShape, body: Any) -> tvm.tirx.PrimFunc:
    """Queries against the keys of the same chunk, around `body(q, q_indptr, b -> keys, ...)`."""
    hkv, d, dtype = shape.num_kv_heads, shape.head_dim, shape.dtype
    attend = _attend(shape, body)

    def keys(k: Any, v: Any, k_indptr: Any) -> Any:
        return lambda b: (
            k_indptr[b + 1] - k_indptr[b],
            flat_element(k, k_indptr[b]),
            flat_element(v, k_indptr[b]),
        )

    @script.prim_func(private=True, s_tir=True)
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
        ki_offset = T.int32()
        k = T.match_buffer(vk, (m, hkv, d), dtype)
        v = T.match_buffer(vv, (m, hkv, d), dtype)
        ki = T.match_buffer(vki, (B + 1,), "int32", elem_offset=ki_offset)
        attend(vq, vqi, keys(k, v, ki), vqp, vkp, vo, vl, B, n, sm_scale)

    return func


def paged_prefill(shape: AttentionShape, body: Any) -> tvm.tirx.PrimFunc:
    """Queries against keys in the cache, around the same `body` as the ragged kernel's."""
    attend = _attend_to_pages(shape, body)

    @script.prim_func(private=True, s_tir=True)
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
        attend(vq, vqi, vp, vpi, vpv, vll, vkp, vqp, vo, vl, B, n, sm_scale)

    return func


def paged_decode(shape: AttentionShape, body: Any) -> tvm.tirx.PrimFunc:
    """One query a sequence against keys in the cache, around `body(q, b -> keys, ...)`."""
    attend = _attend_to_pages(shape, body)

    @script.prim_func(private=True, s_tir=True)
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
        attend(vq, None, vp, vpi, vpv, vll, vkp, vqp, vo, vl, B, B, sm_scale)

    return func


def merge(shape: AttentionShape, body: Any) -> tvm.tirx.PrimFunc:
    """Join the outputs over two sets of keys in place of the first, by `body(o, lse, o2, lse2, n)`."""
    hq, d, dtype = shape.num_heads, shape.head_dim, shape.dtype

    @script.prim_func(private=True, s_tir=True)
    def attention_merge(vo: T.handle, vl: T.handle, vo2: T.handle, vl2: T.handle):
        T.func_attr({"tirx.is_scheduled": True})
        n = T.int32()
        o = T.match_buffer(vo, (n, hq, d), dtype)
        lse = T.match_buffer(vl, (n, hq), "float32")
        o2 = T.match_buffer(vo2, (n, hq, d), dtype)
        lse2 = T.match_buffer(vl2, (n, hq), "float32")
        body(o, lse, o2, lse2, n)

    return attention_merge
