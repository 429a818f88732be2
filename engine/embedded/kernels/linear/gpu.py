"""Products on a GPU: one kernel for a token, one for many."""

from functools import cache
from math import ceil

import tvm
from tvm.script import tirx as T

from engine.catalog import Layout, Quantization
from engine.embedded.kernels import script
from engine.embedded.kernels.linear.weights import with_weights


@cache
def gemv_gpu(rows: int, columns: int, quantization: Quantization, layout: Layout | None) -> tvm.tirx.PrimFunc:
    """One token (or a few): 8 rows of 32 lanes a workgroup, each lane 8 neighbouring columns a step."""
    R, LANES, STEP = 8, 32, 8

    @script.macro
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

    return with_weights(rows, columns, quantization, layout, body)


@cache
def gemm_gpu(rows: int, columns: int, quantization: Quantization, layout: Layout | None) -> tvm.tirx.PrimFunc:
    """Many tokens: tiles of 32 tokens by 64 rows in 256 threads, each thread 2 by 4 results."""
    BM, BN, BK = 32, 64, 16

    @script.macro
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

    return with_weights(rows, columns, quantization, layout, body)
