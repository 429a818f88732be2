"""RMS norms over the last axis: y = x / sqrt(mean(x^2) + eps) * weight, in float32.

`residual` adds the norm to a second input: y = residual + norm(x), Gemma's norms after a sublayer.
"""

from functools import cache
from math import ceil
from typing import Any

import tvm
from tvm.script import tirx as T

THREADS = 256


@cache
def rms_norm(size: int, eps: float, weight_dtype: str, *, residual: bool, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(x, weight[, residual], y): x, residual and y are float32 [n, size]."""
    body: Any = _rows_gpu(size, eps) if gpu else _rows_cpu(size, eps)
    if residual:

        @T.prim_func(private=True, s_tir=True)
        def added(vx: T.handle, vw: T.handle, vr: T.handle, vy: T.handle):
            T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
            n = T.int64()
            x = T.match_buffer(vx, (n, size), "float32")
            w = T.match_buffer(vw, (size,), weight_dtype)
            r = T.match_buffer(vr, (n, size), "float32")
            y = T.match_buffer(vy, (n, size), "float32")
            body(x, w, y, n, lambda i, k: r[i, k])

        return added

    @T.prim_func(private=True, s_tir=True)
    def plain(vx: T.handle, vw: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        x = T.match_buffer(vx, (n, size), "float32")
        w = T.match_buffer(vw, (size,), weight_dtype)
        y = T.match_buffer(vy, (n, size), "float32")
        body(x, w, y, n, lambda i, k: T.float32(0))

    return plain


def _rows_gpu(size: int, eps: float) -> Any:
    """One workgroup a row."""

    @T.macro
    def body(x, w, y, n, base):
        for bx in T.thread_binding(n, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("rms_norm"):
                    partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    acc = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    acc[0] = T.float32(0)
                    for k in T.serial(ceil(size / THREADS)):
                        if k * THREADS + tx < size:
                            acc[0] += x[bx, k * THREADS + tx] * x[bx, k * THREADS + tx]
                    partial[tx] = acc[0]
                    T.tvm_storage_sync("shared")
                    for i in T.unroll(8):
                        if tx < T.shift_right(128, i):
                            partial[tx] = partial[tx] + partial[tx + T.shift_right(128, i)]
                        T.tvm_storage_sync("shared")
                    acc[0] = T.float32(1) / T.sqrt(partial[0] / T.float32(size) + T.float32(eps))
                    for k in T.serial(ceil(size / THREADS)):
                        if k * THREADS + tx < size:
                            y[bx, k * THREADS + tx] = base(bx, k * THREADS + tx) + x[
                                bx, k * THREADS + tx
                            ] * acc[0] * T.Cast("float32", w[k * THREADS + tx])

    return body


def _rows_cpu(size: int, eps: float) -> Any:
    @T.macro
    def body(x, w, y, n, base):
        for i in T.serial(n):
            with T.sblock("rms_norm"):
                acc = T.sblock_alloc_buffer((1,), "float32")
                acc[0] = T.float32(0)
                for k in T.serial(size):
                    acc[0] += x[i, k] * x[i, k]
                acc[0] = T.float32(1) / T.sqrt(acc[0] / T.float32(size) + T.float32(eps))
                for k in T.serial(size):
                    y[i, k] = base(i, k) + x[i, k] * acc[0] * T.Cast("float32", w[k])

    return body
