"""Products on the CPU: a few tokens row by row as the weights are stored, many in register tiles."""

from functools import cache
from math import ceil
from typing import Any

import tvm
from tvm.script import tirx as T

from engine.catalog import Layout, Quantization
from engine.embedded.kernels import script
from engine.embedded.kernels.linear.columns import AwqRows, TransposedRows
from engine.embedded.kernels.linear.rows import FloatRows, GroupedRows, Rows
from engine.embedded.kernels.linear.weights import Reader, with_weights
from engine.embedded.kernels.simd import Simd, load, prefetch, store

FEW = 4
"""Up to so many tokens, reading the weights once for each costs less than widening them for a tile."""
AHEAD = 48
"""Vectors of activations are fetched so many ahead of their use: the farthest cache takes as long."""


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

    @script.macro
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
            stored.pack(x, n, t, 1, packed, t * stored.positions, 0, stored.positions)
        with T.parallel(ceil(stored.rows / stored.dot_rows)) as chunk, T.serial(n) as i, T.sblock("dot"):
            stored.dot(weight, packed, i, chunk * stored.dot_rows, y)


def _tiles(stored: Rows, x: Any, y: Any, n: Any, weight: Reader) -> None:
    """Tiles of results in registers: rows of the weights by one vector of tokens.

    Each task widens a panel of rows once, for all tokens, a piece at a time that stays in the nearest cache
    while all tokens meet it. Tokens lie side by side in a vector, so one load of activations serves every
    row of the panel, and a weight is broadcast from memory by the instruction that multiplies it.
    """
    lanes, height, pieces = stored.simd.lanes, stored.tile_rows, stored.pieces()
    tiles = T.ceildiv(n, lanes)
    with T.sblock("tiles"):
        # Piece after piece, each with all tokens: what a task reads lies in one row.
        packed = T.sblock_alloc_buffer((tiles * stored.positions * lanes,), "float32")
        with T.parallel(tiles) as t, T.sblock("pack"):
            for begin, count, size in pieces:
                with T.serial(count) as piece:
                    start = begin + piece * size
                    stored.pack(x, n, t, lanes, packed, (tiles * start + t * size) * lanes, start, size)
        with T.parallel(ceil(stored.rows / height)) as chunk, T.sblock("panel"):
            # Where tiles do not divide the rows, the last one begins earlier: some results come twice.
            first = T.min(chunk * height, stored.rows - height)
            panel = T.sblock_alloc_buffer((max(stored.panel_size(size) for *_, size in pieces),), "float32")
            sums = T.sblock_alloc_buffer((tiles * height, lanes), "float32")
            with T.serial(tiles * height) as i:
                store(sums, T.Broadcast(T.float32(0), lanes), i, 0, lanes=lanes)
            for begin, count, size in pieces:
                with T.serial(count) as piece, T.sblock("piece"):
                    start = begin + piece * size
                    stored.widen(weight, first, start, size, panel)
                    with T.serial(tiles) as t, T.sblock("tile"):
                        _tile(stored, packed, (tiles * start + t * size) * lanes, size, panel, sums, t)
            with T.serial(n) as token, T.serial(height) as r:
                T.buffer_store(y, sums[token // lanes * height + r, token % lanes], [token, first + r])


def _tile(stored: Rows, packed: Any, base: Any, size: int, panel: Any, sums: Any, t: Any) -> None:
    """Add to the sums of vector `t` of tokens its products with `size` positions packed from `base` on."""
    lanes, height = stored.simd.lanes, stored.tile_rows
    # Of several vectors TVM would make one allocation, which LLVM keeps out of registers.
    acc = [T.sblock_alloc_buffer((lanes,), "float32") for _ in range(height)]
    for r in range(height):
        store(acc[r], load(sums, t * height + r, 0, lanes=lanes), 0, lanes=lanes)
    with T.serial(size) as p:
        T.evaluate(prefetch(packed, base + (p + AHEAD) * lanes))
        for r in range(height):
            step = load(packed, base + p * lanes, lanes=lanes)
            step = step * T.Broadcast(panel[stored.place(r, p, size)], lanes)
            store(acc[r], load(acc[r], 0, lanes=lanes) + step, 0, lanes=lanes)
    for r in range(height):
        store(sums, load(acc[r], 0, lanes=lanes), t * height + r, 0, lanes=lanes)
