"""Softmax with temperature, and top-p sampling from sorted probabilities, over one row of any width.

A row is cut into tiles of TILE elements, one workgroup each; what the tiles found is combined in a fixed
order, so the same logits always give the same probabilities and the same token. On a CPU the tiles are
a plain loop and the sums are the same sums.
"""

# ruff: noqa: SIM102  an `and` reads both its sides on a CPU, so a bound needs an `if` of its own

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels.sort import THREADS, loops

TILE = 4096
EACH = TILE // THREADS
"""Elements of one thread, next to each other."""

# Beyond +-BOUND a logit is taken as the bound, so that a difference of two is finite. Nothing in WGSL
# promises infinities: an implementation may assume that there are none.
BOUND = 1.6e38
# exp(-87) is the last that is no subnormal float32; below it a probability is exactly 0.
LOWEST = -87.0
BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1: a uniform sample that was rounded up to 1 must not pass the whole nucleus."""


def tiles(size: int) -> int:
    """How many tiles a row of `size` elements has."""
    return -(-size // TILE)


def _bounded(logit: Any) -> Any:
    return T.min(T.max(logit, T.float32(-BOUND)), T.float32(BOUND))


def _weight(logit: Any, largest: Any, temperature: Any) -> Any:
    """exp((logit - largest) / temperature), never through an overflow: 0 where it would be subnormal."""
    scale = T.max(temperature, T.float32(1e-6))
    below = _bounded(logit) - largest
    bound = scale * T.float32(LOWEST)
    return T.if_then_else(below < bound, T.float32(0), T.exp(T.max(below, bound) / scale))


def _reached(sum_: Any, goal: Any, turn: Any) -> Any:
    """Turn 0 looks for the first sum that is at least the goal, turn 1 for the first that exceeds it."""
    return T.Or(sum_ > goal, T.And(turn == 0, sum_ == goal))


def softmax_partial(size: int, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(logits f32[1, 1, size], temperature f32[1], out f32[2, tiles]): each tile's maximum and sum."""
    body = _softmax_partial_gpu(size) if gpu else _softmax_partial_cpu(size)

    @T.prim_func(private=True, s_tir=True)
    def softmax_partial(vx: T.handle, vt: T.handle, vo: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (1, 1, size), "float32")
        temperature = T.match_buffer(vt, (1,), "float32")
        out = T.match_buffer(vo, (2, tiles(size)), "float32")
        body(x, temperature, out)

    return softmax_partial


def _softmax_partial_gpu(size: int) -> Any:
    @T.macro
    def body(x, temperature, out):
        for bx in T.thread_binding(tiles(size), thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("tile"):
                    partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    acc = T.sblock_alloc_buffer((2,), "float32", scope="local")
                    acc[0] = T.float32(-BOUND)
                    for k in T.serial(EACH):
                        if bx * TILE + k * THREADS + tx < size:
                            acc[0] = T.max(acc[0], _bounded(x[0, 0, bx * TILE + k * THREADS + tx]))
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
                            acc[1] += _weight(x[0, 0, bx * TILE + k * THREADS + tx], acc[0], temperature[0])
                    partial[tx] = acc[1]
                    T.tvm_storage_sync("shared")
                    for i in T.serial(8):
                        if tx < T.shift_right(128, i):
                            partial[tx] = partial[tx] + partial[tx + T.shift_right(128, i)]
                        T.tvm_storage_sync("shared")
                    if tx == 0:
                        out[0, bx] = acc[0]
                        out[1, bx] = partial[0]

    return body


def _softmax_partial_cpu(size: int) -> Any:
    @T.macro
    def body(x, temperature, out):
        for tile in T.serial(tiles(size)):
            with T.sblock("tile"):
                acc = T.sblock_alloc_buffer((3,), "float32")
                acc[0] = T.float32(-BOUND)
                acc[1] = T.float32(0)
                for k in T.serial(T.min(TILE, size - tile * TILE)):
                    acc[0] = T.max(acc[0], _bounded(x[0, 0, tile * TILE + k]))
                # Sums of EACH, then their sum: a plain running sum would lose digits.
                for k in T.serial(T.ceildiv(T.min(TILE, size - tile * TILE), EACH)):
                    acc[2] = T.float32(0)
                    for u in T.serial(EACH):
                        if tile * TILE + k * EACH + u < size:
                            acc[2] += _weight(x[0, 0, tile * TILE + k * EACH + u], acc[0], temperature[0])
                    acc[1] += acc[2]
                out[0, tile] = acc[0]
                out[1, tile] = acc[1]

    return body


def softmax_scale(size: int, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(logits, temperature, partials f32[2, tiles], probabilities f32[1, 1, size])."""
    blocks, threads = loops(gpu)

    @T.prim_func(private=True, s_tir=True)
    def softmax_scale(vx: T.handle, vt: T.handle, vp: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (1, 1, size), "float32")
        temperature = T.match_buffer(vt, (1,), "float32")
        partial = T.match_buffer(vp, (2, tiles(size)), "float32")
        y = T.match_buffer(vy, (1, 1, size), "float32")
        for bx in blocks(tiles(size)):
            for tx in threads(THREADS):
                with T.sblock("tile"):
                    acc = T.sblock_alloc_buffer((2,), "float32", scope="local")
                    acc[0] = partial[0, 0]
                    for i in T.serial(tiles(size)):
                        acc[0] = T.max(acc[0], partial[0, i])
                    acc[1] = T.float32(0)
                    for i in T.serial(tiles(size)):
                        acc[1] += partial[1, i] * _weight(partial[0, i], acc[0], temperature[0])
                    for k in T.serial(EACH):
                        if bx * TILE + k * THREADS + tx < size:
                            y[0, 0, bx * TILE + k * THREADS + tx] = (
                                _weight(x[0, 0, bx * TILE + k * THREADS + tx], acc[0], temperature[0])
                                / acc[1]
                            )

    return softmax_scale


def tile_sums(size: int, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(values f32[1, size], sums f32[tiles], parts f32[tiles, THREADS]): each tile's sum, and of what.

    A part is the sum of EACH neighbours, and a tile's sum adds its parts from the first to the last.
    """
    body = _tile_sums_gpu(size) if gpu else _tile_sums_cpu(size)

    @T.prim_func(private=True, s_tir=True)
    def tile_sums(vx: T.handle, vs: T.handle, vp: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (1, size), "float32")
        total = T.match_buffer(vs, (tiles(size),), "float32")
        part = T.match_buffer(vp, (tiles(size), THREADS), "float32")
        body(x, total, part)

    return tile_sums


def _tile_sums_gpu(size: int) -> Any:
    @T.macro
    def body(x, total, part):
        for bx in T.thread_binding(tiles(size), thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("tile"):
                    partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    acc = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    acc[0] = T.float32(0)
                    for k in T.serial(EACH):
                        if bx * TILE + tx * EACH + k < size:
                            acc[0] += x[0, bx * TILE + tx * EACH + k]
                    part[bx, tx] = acc[0]
                    partial[tx] = acc[0]
                    T.tvm_storage_sync("shared")
                    if tx == 0:
                        acc[0] = T.float32(0)
                        for i in T.serial(THREADS):
                            acc[0] += partial[i]
                        total[bx] = acc[0]

    return body


def _tile_sums_cpu(size: int) -> Any:
    @T.macro
    def body(x, total, part):
        for tile in T.serial(tiles(size)):
            with T.sblock("tile"):
                acc = T.sblock_alloc_buffer((2,), "float32")
                acc[0] = T.float32(0)
                for i in T.serial(THREADS):
                    acc[1] = T.float32(0)
                    for k in T.serial(EACH):
                        if tile * TILE + i * EACH + k < size:
                            acc[1] += x[0, tile * TILE + i * EACH + k]
                    part[tile, i] = acc[1]
                    acc[0] += acc[1]
                total[tile] = acc[0]

    return body


def pick(size: int, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(sorted f32[1, size], indices i32[1, size], sums, parts, uniform f32[1], top_p f32[1], token i32[1]).

    The nucleus is the shortest prefix whose probability reaches top_p, the whole row from top_p = 1 on;
    the token is the first whose cumulative probability exceeds uniform times that of the nucleus, as in
    `sample_top_p_top_k_from_sorted_prob` of TVM. One thread walks tiles, parts and elements, some three
    hundred steps for a quarter of a million tokens. Rounding differs from level to level by an ulp, so
    a level that ends early takes its last element of positive probability.
    """
    blocks, threads = loops(gpu)

    @T.prim_func(private=True, s_tir=True)
    def pick(
        vx: T.handle,
        vi: T.handle,
        vs: T.handle,
        vq: T.handle,
        vu: T.handle,
        vp: T.handle,
        vo: T.handle,
    ):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (1, size), "float32")
        index = T.match_buffer(vi, (1, size), "int32")
        total = T.match_buffer(vs, (tiles(size),), "float32")
        part = T.match_buffer(vq, (tiles(size), THREADS), "float32")
        uniform = T.match_buffer(vu, (1,), "float32")
        top_p = T.match_buffer(vp, (1,), "float32")
        token = T.match_buffer(vo, (1,), "int32")
        for _bx in blocks(1):
            for _tx in threads(1):
                with T.sblock("pick"):
                    goal = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    nucleus = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    # cumulative probability before the tile; of its parts so far; of what precedes in those
                    before = T.sblock_alloc_buffer((3,), "float32", scope="local")
                    tile = T.sblock_alloc_buffer((1,), "int32", scope="local")
                    lane = T.sblock_alloc_buffer((1,), "int32", scope="local")
                    open_ = T.sblock_alloc_buffer((1,), "int32", scope="local")
                    # the last element of the nucleus, then the element picked; -1 is none
                    place = T.sblock_alloc_buffer((2,), "int32", scope="local")
                    nucleus[0] = T.float32(0)
                    for turn in T.serial(2):
                        goal[0] = T.min(uniform[0], T.float32(BELOW_ONE)) * nucleus[0]
                        if turn == 0:
                            # No sum reaches this: the whole row.
                            goal[0] = T.if_then_else(top_p[0] < T.float32(1), top_p[0], T.float32(BOUND))
                        place[turn] = -1
                        before[0] = T.float32(0)
                        tile[0] = -1
                        for i in T.serial(tiles(size)):
                            if tile[0] < 0:
                                if _reached(before[0] + total[i], goal[0], turn):
                                    tile[0] = i
                                else:
                                    before[0] = before[0] + total[i]
                        if tile[0] < 0:
                            if turn == 0:
                                nucleus[0] = before[0]
                        else:
                            # `before` of the part that is held, and what it adds up to with that part.
                            before[1] = T.float32(0)
                            before[2] = T.float32(0)
                            lane[0] = 0
                            open_[0] = 1
                            for i in T.serial(THREADS):
                                if open_[0] == 1 and part[tile[0], i] > T.float32(0):
                                    lane[0] = i
                                    before[1] = before[2]
                                    before[2] = before[2] + part[tile[0], i]
                                    if _reached(before[0] + before[2], goal[0], turn):
                                        open_[0] = 0
                            before[2] = T.float32(0)
                            open_[0] = 1
                            for k in T.serial(EACH):
                                if tile[0] * TILE + lane[0] * EACH + k < size and open_[0] == 1:
                                    if x[0, tile[0] * TILE + lane[0] * EACH + k] > T.float32(0):
                                        place[turn] = tile[0] * TILE + lane[0] * EACH + k
                                        before[2] = before[2] + x[0, tile[0] * TILE + lane[0] * EACH + k]
                                        if _reached(before[0] + (before[1] + before[2]), goal[0], turn):
                                            open_[0] = 0
                            if turn == 0:
                                nucleus[0] = before[0] + (before[1] + before[2])
                    # Rounding may pick past the nucleus, or (its sum being an ulp more) nothing: its end.
                    if place[1] < 0 or (place[0] >= 0 and place[1] > place[0]):
                        place[1] = T.max(place[0], 0)
                    token[0] = index[0, place[1]]

    return pick
