"""Products on the CPU."""

from functools import cache
from math import ceil

import tvm
from tvm.script import tirx as T

from engine.catalog import Layout, Quantization
from engine.embedded.kernels.linear.weights import with_weights


@cache
def matmul_cpu(
    rows: int, columns: int, quantization: Quantization, layout: Layout | None
) -> tvm.tirx.PrimFunc:
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

    return with_weights(rows, columns, quantization, layout, body)
