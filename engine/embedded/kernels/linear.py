"""Matrix products with stored weights: y[n, N] = x[n, K] @ w[N, K].T, accumulated in float32.

Weights are read as they are stored and widened inside the kernel, so no dequantized copy of a
matrix ever exists. Activations are float32 for every quantization: what overflows float16 in
Gemma 3 is the residual stream and the gated product, not the weights.

Kernels are cached by their arguments: parsing one takes longer than all that follows, and the
layers of a model share them.
"""

from collections.abc import Callable
from functools import cache
from math import ceil
from typing import Any

import tvm
from tvm.script import tirx as T

from engine.catalog import Quantization

Reader = Callable[[Any, Any], Any]
"""(row, column) -> float32 expression of that weight."""


def plain_reader(weight: Any) -> Reader:
    """Weights stored as floats."""
    return lambda row, column: T.Cast("float32", weight[row, column])


def group_reader(words: Any, scales: Any, quantization: Quantization) -> Reader:
    """Group-quantized weights: (q - max_int) * scale, `q` packed lowest first into uint32 words."""
    assert quantization.bits is not None
    per_word, group = quantization.elements_per_word, quantization.group_size
    bits, max_int = quantization.bits, quantization.max_int

    def read(row: Any, column: Any) -> Any:
        shift = T.Cast("uint32", column % per_word) * T.uint32(bits)
        q = (words[row, column // per_word] >> shift) & T.uint32(2**bits - 1)
        centred = T.Cast("float32", T.Cast("int32", q) - max_int)
        return centred * T.Cast("float32", scales[row, column // group])

    return read


def _with_weights(
    rows: int, columns: int, quantization: Quantization, quantized: bool, body: Any
) -> tvm.tirx.PrimFunc:
    """A kernel f(x, *weights, y) around `body`, which sees weights only through a Reader."""
    model_dtype = quantization.model_dtype
    if not quantized:

        @T.prim_func(private=True, s_tir=True)
        def plain(vx: T.handle, vw: T.handle, vy: T.handle):
            T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
            n = T.int64()
            x = T.match_buffer(vx, (n, columns), "float32")
            w = T.match_buffer(vw, (rows, columns), model_dtype)
            y = T.match_buffer(vy, (n, rows), "float32")
            body(x, y, n, plain_reader(w))

        return plain

    groups = ceil(columns / quantization.group_size)
    words = groups * (quantization.group_size // quantization.elements_per_word)

    @T.prim_func(private=True, s_tir=True)
    def grouped(vx: T.handle, vw: T.handle, vs: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        x = T.match_buffer(vx, (n, columns), "float32")
        w = T.match_buffer(vw, (rows, words), "uint32")
        s = T.match_buffer(vs, (rows, groups), model_dtype)
        y = T.match_buffer(vy, (n, rows), "float32")
        body(x, y, n, group_reader(w, s, quantization))

    return grouped


@cache
def gemv_gpu(rows: int, columns: int, quantization: Quantization, quantized: bool) -> tvm.tirx.PrimFunc:
    """One token (or a few): 8 rows of 32 lanes a workgroup, each lane 8 neighbouring columns a step."""
    R, LANES, STEP = 8, 32, 8

    @T.macro
    def body(x, y, n, weight):
        for by in T.thread_binding(n, thread="blockIdx.y"):
            for bx in T.thread_binding(ceil(rows / R), thread="blockIdx.x"):
                for ty in T.thread_binding(R, thread="threadIdx.y"):
                    for tx in T.thread_binding(LANES, thread="threadIdx.x"):
                        with T.sblock("gemv"):
                            partial = T.sblock_alloc_buffer((R, LANES), "float32", scope="shared")
                            acc = T.sblock_alloc_buffer((1,), "float32", scope="local")
                            acc[0] = T.float32(0)
                            for k in T.serial(ceil(columns / (LANES * STEP))):
                                for u in T.unroll(STEP):
                                    if (k * LANES + tx) * STEP + u < columns and bx * R + ty < rows:
                                        acc[0] += x[by, (k * LANES + tx) * STEP + u] * weight(
                                            bx * R + ty, (k * LANES + tx) * STEP + u
                                        )
                            partial[ty, tx] = acc[0]
                            T.tvm_storage_sync("shared")
                            for i in T.unroll(5):
                                if tx < T.shift_right(16, i):
                                    partial[ty, tx] = partial[ty, tx] + partial[ty, tx + T.shift_right(16, i)]
                                T.tvm_storage_sync("shared")
                            if tx == 0 and bx * R + ty < rows:
                                y[by, bx * R + ty] = partial[ty, 0]

    return _with_weights(rows, columns, quantization, quantized, body)


@cache
def gemm_gpu(rows: int, columns: int, quantization: Quantization, quantized: bool) -> tvm.tirx.PrimFunc:
    """Many tokens: tiles of 32 tokens by 64 rows in 256 threads, each thread 2 by 4 results."""
    BM, BN, BK = 32, 64, 16

    @T.macro
    def body(x, y, n, weight):
        for by in T.thread_binding(T.ceildiv(n, BM), thread="blockIdx.y"):
            for bx in T.thread_binding(ceil(rows / BN), thread="blockIdx.x"):
                for ty in T.thread_binding(16, thread="threadIdx.y"):
                    for tx in T.thread_binding(16, thread="threadIdx.x"):
                        with T.sblock("gemm"):
                            xs = T.sblock_alloc_buffer((BM, BK), "float32", scope="shared")
                            # Transposed, so that the 16 threads of a row read neighbours.
                            ws = T.sblock_alloc_buffer((BK, BN), "float32", scope="shared")
                            acc = T.sblock_alloc_buffer((2, 4), "float32", scope="local")
                            for i in T.unroll(2):
                                for j in T.unroll(4):
                                    acc[i, j] = T.float32(0)
                            for k in T.serial(ceil(columns / BK)):
                                for i in T.unroll(2):
                                    xs[i * 16 + ty, tx] = T.if_then_else(
                                        by * BM + i * 16 + ty < n and k * BK + tx < columns,
                                        x[by * BM + i * 16 + ty, k * BK + tx],
                                        T.float32(0),
                                    )
                                for j in T.unroll(4):
                                    ws[tx, j * 16 + ty] = T.if_then_else(
                                        bx * BN + j * 16 + ty < rows and k * BK + tx < columns,
                                        weight(bx * BN + j * 16 + ty, k * BK + tx),
                                        T.float32(0),
                                    )
                                T.tvm_storage_sync("shared")
                                for u in T.serial(BK):
                                    for i in T.unroll(2):
                                        for j in T.unroll(4):
                                            acc[i, j] += xs[i * 16 + ty, u] * ws[u, j * 16 + tx]
                                T.tvm_storage_sync("shared")
                            for i in T.unroll(2):
                                for j in T.unroll(4):
                                    if by * BM + i * 16 + ty < n and bx * BN + j * 16 + tx < rows:
                                        y[by * BM + i * 16 + ty, bx * BN + j * 16 + tx] = acc[i, j]

    return _with_weights(rows, columns, quantization, quantized, body)


@cache
def matmul_cpu(rows: int, columns: int, quantization: Quantization, quantized: bool) -> tvm.tirx.PrimFunc:
    """Any number of tokens: each row is widened once and used for all of them, 16 lanes wide."""
    LANES, CHUNK = 16, 16
    steps = ceil(columns / LANES)

    @T.macro
    def body(x, y, n, weight):
        for chunk in T.parallel(ceil(rows / CHUNK)):
            with T.sblock("matmul"):
                row = T.sblock_alloc_buffer((steps * LANES,), "float32")
                acc = T.sblock_alloc_buffer((LANES,), "float32")
                total = T.sblock_alloc_buffer((1,), "float32")
                for r in T.serial(CHUNK):
                    if chunk * CHUNK + r < rows:
                        for k in T.serial(steps * LANES):
                            row[k] = T.if_then_else(k < columns, weight(chunk * CHUNK + r, k), T.float32(0))
                        for i in T.serial(n):
                            for v in T.vectorized(LANES):
                                acc[v] = T.float32(0)
                            for k in T.serial(columns // LANES):
                                for v in T.vectorized(LANES):
                                    acc[v] += x[i, k * LANES + v] * row[k * LANES + v]
                            total[0] = T.float32(0)
                            for v in T.serial(LANES):
                                total[0] += acc[v]
                            for k in T.serial(columns % LANES):
                                total[0] += (
                                    x[i, columns // LANES * LANES + k] * row[columns // LANES * LANES + k]
                                )
                            y[i, chunk * CHUNK + r] = total[0]

    return _with_weights(rows, columns, quantization, quantized, body)
