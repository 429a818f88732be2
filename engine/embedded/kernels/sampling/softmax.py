"""Softmax with a temperature for each row, which may be 0."""

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.sampling.rows import EACH, THREADS, TILE, Rows, tiles

# Beyond +-BOUND a logit is taken as the bound, so that a difference of two is finite. Nothing in WGSL
# promises infinities: an implementation may assume that there are none.
BOUND = 1.6e38
# exp(-87) is the last that is no subnormal float32; below it a probability is exactly 0.
LOWEST = -87.0
# What a temperature of 0 is taken for: no two logits are so near that the smaller one would get anything.
COLDEST = 1e-30


def _bounded(logit: Any) -> Any:
    return T.min(T.max(logit, T.float32(-BOUND)), T.float32(BOUND))


def _weight(logit: Any, largest: Any, temperature: Any) -> Any:
    """exp((logit - largest) / temperature), never through an overflow: 0 where it would be subnormal."""
    scale = T.max(temperature, T.float32(COLDEST))
    below = _bounded(logit) - largest
    bound = scale * T.float32(LOWEST)
    return T.if_then_else(below < bound, T.float32(0), T.exp(T.max(below, bound) / scale))


def _unless_padding(value: Any, token: Any, rows: Rows) -> Any:
    """`value`, or 0 for a token that only pads the vocabulary."""
    return value if rows.active == rows.width else T.if_then_else(token < rows.active, value, T.float32(0))


def softmax_partial(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(logits f32[b, 1, width], temperature f32[b], out f32[b, 2 * tiles]): of tiles, maxima and sums."""
    body = _softmax_partial_gpu(rows) if rows.gpu else _softmax_partial_cpu(rows)
    b = rows.count("b")

    @script.prim_func(private=True, s_tir=True)
    def softmax_partial(vx: T.handle, vt: T.handle, vo: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, 1, rows.width), "float32")
        temperature = T.match_buffer(vt, (b,), "float32")
        out = T.match_buffer(vo, (b, 2 * tiles(rows.active)), "float32")
        for r in rows.over(b):
            body(x, temperature, out, r)

    return softmax_partial


def _softmax_partial_gpu(rows: Rows) -> Any:
    size = rows.active

    @script.macro
    def body(x, temperature, out, r):
        for bx in T.thread_binding(tiles(size), thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("tile"):
                    partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    acc = T.sblock_alloc_buffer((2,), "float32", scope="local")
                    acc[0] = T.float32(-BOUND)
                    for k in T.serial(EACH):
                        if bx * TILE + k * THREADS + tx < size:
                            acc[0] = T.max(acc[0], _bounded(x[r, 0, bx * TILE + k * THREADS + tx]))
                    partial[tx] = acc[0]
                    T.tvm_storage_sync("shared")
                    for i in T.serial(8):
                        if tx < T.shift_right(128, i):
                            partial[tx] = T.max(partial[tx], partial[tx + T.shift_right(128, i)])
                        T.tvm_storage_sync("shared")
                    acc[0] = partial[0]
                    T.tvm_storage_sync("shared")
                    acc[1] = T.float32(0)
                    for k in T.serial(EACH):
                        if bx * TILE + k * THREADS + tx < size:
                            acc[1] += _weight(x[r, 0, bx * TILE + k * THREADS + tx], acc[0], temperature[r])
                    partial[tx] = acc[1]
                    T.tvm_storage_sync("shared")
                    for i in T.serial(8):
                        if tx < T.shift_right(128, i):
                            partial[tx] = partial[tx] + partial[tx + T.shift_right(128, i)]
                        T.tvm_storage_sync("shared")
                    if tx == 0:
                        out[r, bx] = acc[0]
                        out[r, tiles(size) + bx] = partial[0]

    return body


def _softmax_partial_cpu(rows: Rows) -> Any:
    size = rows.active

    @script.macro
    def body(x, temperature, out, r):
        for tile in T.serial(tiles(size)):
            with T.sblock("tile"):
                acc = T.sblock_alloc_buffer((3,), "float32")
                acc[0] = T.float32(-BOUND)
                acc[1] = T.float32(0)
                for k in T.serial(T.min(TILE, size - tile * TILE)):
                    acc[0] = T.max(acc[0], _bounded(x[r, 0, tile * TILE + k]))
                # Sums of EACH, then their sum: a plain running sum would lose digits.
                for k in T.serial(T.ceildiv(T.min(TILE, size - tile * TILE), EACH)):
                    acc[2] = T.float32(0)
                    for u in T.serial(EACH):
                        if tile * TILE + k * EACH + u < size:
                            acc[2] += _weight(x[r, 0, tile * TILE + k * EACH + u], acc[0], temperature[r])
                    acc[1] += acc[2]
                out[r, tile] = acc[0]
                out[r, tiles(size) + tile] = acc[1]

    return body


def softmax_scale(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(logits, temperature, partials f32[b, 2 * tiles], probabilities f32[b, 1, width])."""
    blocks, threads = rows.loops()
    size, b = rows.width, rows.count("b")

    @script.prim_func(private=True, s_tir=True)
    def softmax_scale(vx: T.handle, vt: T.handle, vp: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, 1, size), "float32")
        temperature = T.match_buffer(vt, (b,), "float32")
        partial = T.match_buffer(vp, (b, 2 * tiles(rows.active)), "float32")
        y = T.match_buffer(vy, (b, 1, size), "float32")
        for r in rows.over(b):
            for bx in blocks(tiles(size)):
                for tx in threads(THREADS):
                    with T.sblock("tile"):
                        acc = T.sblock_alloc_buffer((2,), "float32", scope="local")
                        acc[0] = partial[r, 0]
                        for i in T.serial(tiles(rows.active)):
                            acc[0] = T.max(acc[0], partial[r, i])
                        acc[1] = T.float32(0)
                        for i in T.serial(tiles(rows.active)):
                            acc[1] += partial[r, tiles(rows.active) + i] * _weight(
                                partial[r, i], acc[0], temperature[r]
                            )
                        for k in T.serial(EACH):
                            if bx * TILE + k * THREADS + tx < size:
                                y[r, 0, bx * TILE + k * THREADS + tx] = _unless_padding(
                                    _weight(x[r, 0, bx * TILE + k * THREADS + tx], acc[0], temperature[r])
                                    / acc[1],
                                    bx * TILE + k * THREADS + tx,
                                    rows,
                                )

    return softmax_scale
