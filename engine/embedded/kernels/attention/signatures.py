"""The calling convention of the cache's attention functions, each around the body of a schedule.

A body sees queries, and for a sequence `b` a triple keys(b) = (how many, reader of keys, reader of
values), whether those lie in pages or in the chunk itself.
"""

from functools import partial
from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels.attention.shape import (
    AttentionShape,
    flat_element,
    page_element,
    paged_length,
)


def _paged_keys(pages: Any, indptr: Any, values: Any, last: Any, *, page_size: int) -> Any:
    return lambda b: (
        paged_length(indptr, last, b, page_size),
        page_element(pages, values, indptr[b], 0, page_size),
        page_element(pages, values, indptr[b], 1, page_size),
    )


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

    keys = partial(_paged_keys, page_size=ps)

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

    keys = partial(_paged_keys, page_size=ps)

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
