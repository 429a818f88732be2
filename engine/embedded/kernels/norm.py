"""Norms over the last axis, in float32.

RMS norm: y = x / sqrt(mean(x^2) + eps) * weight. Layer norm: y = (x - mean(x)) / sqrt(var(x) + eps)
* weight, with the variance of the population. Both + bias, where the model has one, and + residual for
a norm after a sublayer.
"""

from functools import cache
from math import ceil
from typing import Any, Literal

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.optional import without_unused

THREADS = 256
LANES = 16
FEW = 4


@cache
def norm(
    size: int,
    eps: float,
    weight_dtype: str,
    *,
    kind: Literal["rms", "layer"],
    bias: bool,
    residual: bool,
    gpu: bool,
) -> tvm.tirx.PrimFunc:
    """f(x, weight[, bias][, residual], y): x, residual and y are float32 [n, size]."""
    body: Any = (_rows_gpu if gpu else _rows_cpu)(size, eps, centred=kind == "layer")

    @script.prim_func(private=True, s_tir=True)
    def func(vx: T.handle, vw: T.handle, vb: T.handle, vr: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        x = T.match_buffer(vx, (n, size), "float32")
        w = T.match_buffer(vw, (size,), weight_dtype)
        b = T.match_buffer(vb, (size,), weight_dtype)
        r = T.match_buffer(vr, (n, size), "float32")
        y = T.match_buffer(vy, (n, size), "float32")
        body(x, lambda i, k, v: _finished(v, i, k, w, b if bias else None, r if residual else None), y, n)

    return without_unused(func)


def _finished(value: Any, i: Any, k: Any, weight: Any, bias: Any, residual: Any) -> Any:
    """What is made of the normed `value` at [i, k]."""
    value = value * T.Cast("float32", weight[k])
    if bias is not None:
        value = value + T.Cast("float32", bias[k])
    return value if residual is None else residual[i, k] + value


def _rows_gpu(size: int, eps: float, centred: bool) -> Any:
    """One workgroup a row; sums are reduced in shared memory, the mean before the squares."""

    @script.macro
    def total(partial, acc, tx):
        T.tvm_storage_sync("shared")
        partial[tx] = acc[0]
        T.tvm_storage_sync("shared")
        for i in T.unroll(8):
            if tx < T.shift_right(128, i):
                partial[tx] = partial[tx] + partial[tx + T.shift_right(128, i)]
            T.tvm_storage_sync("shared")
        acc[0] = partial[0]

    @script.macro
    def body(x, finished, y, n):
        for bx in T.thread_binding(n, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("norm"):
                    partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    acc = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    mean[0] = T.float32(0)
                    if centred:
                        acc[0] = T.float32(0)
                        for k in T.serial(ceil(size / THREADS)):
                            if k * THREADS + tx < size:
                                acc[0] += x[bx, k * THREADS + tx]
                        total(partial, acc, tx)
                        mean[0] = acc[0] / T.float32(size)
                    acc[0] = T.float32(0)
                    for k in T.serial(ceil(size / THREADS)):
                        if k * THREADS + tx < size:
                            acc[0] += (x[bx, k * THREADS + tx] - mean[0]) * (
                                x[bx, k * THREADS + tx] - mean[0]
                            )
                    total(partial, acc, tx)
                    acc[0] = T.float32(1) / T.sqrt(acc[0] / T.float32(size) + T.float32(eps))
                    for k in T.serial(ceil(size / THREADS)):
                        if k * THREADS + tx < size:
                            y[bx, k * THREADS + tx] = finished(
                                bx, k * THREADS + tx, (x[bx, k * THREADS + tx] - mean[0]) * acc[0]
                            )

    return body


def _element(x: Any, i: Any) -> Any:
    return lambda k: x[i, k]


def _square(x: Any, i: Any, mean: Any) -> Any:
    return lambda k: (x[i, k] - mean[0]) * (x[i, k] - mean[0])


def _rows_cpu(size: int, eps: float, centred: bool) -> Any:
    """Sums run in lanes, which vectorises them and loses fewer digits than one running sum."""

    @script.macro
    def total(read, lanes, acc):
        for v in T.vectorized(LANES):
            lanes[v] = T.float32(0)
        for k in T.serial(size // LANES):
            for v in T.vectorized(LANES):
                lanes[v] += read(k * LANES + v)
        acc[0] = T.float32(0)
        for v in T.serial(LANES):
            acc[0] += lanes[v]
        for k in T.serial(size % LANES):
            acc[0] += read(size // LANES * LANES + k)

    @script.macro
    def row(x, finished, y, i):
        with T.sblock("norm"):
            lanes = T.sblock_alloc_buffer((LANES,), "float32")
            acc = T.sblock_alloc_buffer((1,), "float32")
            mean = T.sblock_alloc_buffer((1,), "float32")
            mean[0] = T.float32(0)
            if centred:
                total(_element(x, i), lanes, acc)
                mean[0] = acc[0] / T.float32(size)
            total(_square(x, i, mean), lanes, acc)
            acc[0] = T.float32(1) / T.sqrt(acc[0] / T.float32(size) + T.float32(eps))
            for k in T.serial(size):
                y[i, k] = finished(i, k, (x[i, k] - mean[0]) * acc[0])

    @script.macro
    def body(x, finished, y, n):
        # Waking other threads takes longer than a row.
        if n > FEW:
            for i in T.parallel(n):
                row(x, finished, y, i)
        else:
            for i in T.serial(n):
                row(x, finished, y, i)

    return body
