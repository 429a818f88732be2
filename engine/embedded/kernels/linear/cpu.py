"""Products on the CPU: a few tokens row by row as the weights are stored, many in register tiles."""

from functools import cache
from math import ceil
from typing import Any

import tvm
from tvm.script import tirx as T

from engine.catalog import Layout, Quantization
from engine.embedded.kernels.linear.columns import AwqRows, TransposedRows
from engine.embedded.kernels.linear.rows import FloatRows, GroupedRows, Rows
from engine.embedded.kernels.linear.weights import Reader, with_weights
from engine.embedded.kernels.simd import Simd, load

FEW = 4
"""Up to so many tokens, reading the weights once for each costs less than widening them for a tile."""


@cache
def matmul_cpu(
    rows: int, columns: int, quantization: Quantization, layout: Layout | None, simd: Simd
) -> tvm.tirx.PrimFunc:
    """Any number of tokens, in parallel over rows of the weights."""
    stored: Rows
    if layout is None:
        stored = FloatRows(rows, columns, simd)
    elif quantization.from_awq:
        stored = AwqRows(rows, columns, simd, quantization)
    elif layout == "NK":
        stored = GroupedRows(rows, columns, simd, quantization)
    else:
        stored = TransposedRows(rows, columns, simd, quantization)

    @T.macro
    def body(x, y, n, weight):
        with T.sblock("matmul"):
            _emit(stored, x, y, n, weight)

    return with_weights(rows, columns, quantization, layout, body)


def _emit(stored: Rows, x: Any, y: Any, n: Any, weight: Reader) -> None:
    if not stored.dot_rows:
        _tiles(stored, x, y, n, weight)
        return
    with T.If(n <= FEW):
        with T.Then():
            _row_by_row(stored, x, y, n, weight)
        with T.Else():
            _tiles(stored, x, y, n, weight)


def _row_by_row(stored: Rows, x: Any, y: Any, n: Any, weight: Reader) -> None:
    """Each task takes a few rows and multiplies them with every token."""
    with T.sblock("row_by_row"):
        packed = T.sblock_alloc_buffer((FEW * stored.positions,), "float32")
        with T.serial(n) as t, T.sblock("pack"):
            stored.pack(x, n, t, 1, packed)
        with T.parallel(ceil(stored.rows / stored.dot_rows)) as chunk, T.serial(n) as i, T.sblock("dot"):
            stored.dot(weight, packed, i, chunk * stored.dot_rows, y)


def _tiles(stored: Rows, x: Any, y: Any, n: Any, weight: Reader) -> None:
    """Tiles of results in registers: rows of the weights by one vector of tokens.

    Each task widens a panel of rows once, for all tokens. Tokens lie side by side in a vector, so that
    weights need no transposing: one load of activations serves every row of the panel, and a weight is
    broadcast from memory by the instruction that multiplies it.
    """
    lanes, positions = stored.simd.lanes, stored.positions
    height = stored.simd.registers * 3 // 4
    # Were it a power of two, the rows of a panel would meet in one set of the cache.
    stride = ceil(positions / 16) * 16 + 16
    with T.sblock("tiles"):
        packed = T.sblock_alloc_buffer((T.ceildiv(n, lanes) * positions * lanes,), "float32")
        with T.parallel(T.ceildiv(n, lanes)) as t, T.sblock("pack"):
            stored.pack(x, n, t, lanes, packed)
        with T.parallel(ceil(stored.rows / height)) as chunk, T.sblock("panel"):
            panel = T.sblock_alloc_buffer((height * stride,), "float32")
            stored.widen(weight, chunk * height, height, panel, stride)
            with T.serial(T.ceildiv(n, lanes)) as t, T.sblock("tile"):
                acc = T.sblock_alloc_buffer((height, lanes), "float32")
                for r in range(height):
                    T.buffer_store(acc, T.Broadcast(T.float32(0), lanes), [r, T.ramp(0, 1, lanes)])
                with T.serial(positions) as p:
                    for r in range(height):
                        step = load(packed, (t * positions + p) * lanes, lanes=lanes)
                        step = step * T.Broadcast(panel[r * stride + p], lanes)
                        T.buffer_store(acc, load(acc, r, 0, lanes=lanes) + step, [r, T.ramp(0, 1, lanes)])
                with T.serial(lanes) as v, T.serial(height) as r:
                    token, row = t * lanes + v, chunk * height + r
                    with T.If(T.And(token < n, row < stored.rows)), T.Then():
                        T.buffer_store(y, acc[r, v], [token, row])
