"""A token by its cumulative probability: of a whole row, or of the top-p nucleus of a sorted row."""

# ruff: noqa: SIM102  an `and` reads both its sides on a CPU, so a bound needs an `if` of its own

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.optional import without_unused
from engine.embedded.kernels.sampling.rows import EACH, THREADS, TILE, Rows, tiles
from engine.embedded.kernels.sampling.softmax import BOUND

BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1: a uniform sample that was rounded up to 1 must not pass the whole nucleus."""


def tile_sums(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(values f32[b, width], sums f32[b, tiles], parts f32[b, tiles * THREADS]): of each tile, and of what.

    A part is the sum of EACH neighbours, and a tile's sum adds its parts from the first to the last.
    """
    body = _tile_sums_gpu(rows.width) if rows.gpu else _tile_sums_cpu(rows.width)
    count, b = tiles(rows.width), rows.count("b")

    @script.prim_func(private=True, s_tir=True)
    def tile_sums(vx: T.handle, vs: T.handle, vp: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, rows.width), "float32")
        total = T.match_buffer(vs, (b, count), "float32")
        part = T.match_buffer(vp, (b, count * THREADS), "float32")
        for r in rows.over(b):
            body(x, total, part, r)

    return tile_sums


def _tile_sums_gpu(size: int) -> Any:
    @script.macro
    def body(x, total, part, r):
        for bx in T.thread_binding(tiles(size), thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("tile"):
                    partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    acc = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    acc[0] = T.float32(0)
                    for k in T.serial(EACH):
                        if bx * TILE + tx * EACH + k < size:
                            acc[0] += x[r, bx * TILE + tx * EACH + k]
                    part[r, bx * THREADS + tx] = acc[0]
                    partial[tx] = acc[0]
                    T.tvm_storage_sync("shared")
                    if tx == 0:
                        acc[0] = T.float32(0)
                        for i in T.serial(THREADS):
                            acc[0] += partial[i]
                        total[r, bx] = acc[0]

    return body


def _tile_sums_cpu(size: int) -> Any:
    @script.macro
    def body(x, total, part, r):
        for tile in T.serial(tiles(size)):
            with T.sblock("tile"):
                acc = T.sblock_alloc_buffer((2,), "float32")
                acc[0] = T.float32(0)
                for i in T.serial(THREADS):
                    acc[1] = T.float32(0)
                    for k in T.serial(EACH):
                        if tile * TILE + i * EACH + k < size:
                            acc[1] += x[r, tile * TILE + i * EACH + k]
                    part[r, tile * THREADS + i] = acc[1]
                    acc[0] += acc[1]
                total[r, tile] = acc[0]

    return body


def _reached(sum_: Any, goal: Any, turn: Any) -> Any:
    """Turn 0 looks for the first sum that is at least the goal, turn 1 for the first that exceeds it."""
    return T.Or(sum_ > goal, T.And(turn == 0, sum_ == goal))


def nucleus_goal(top_p: Any) -> Any:
    """What the probability of a nucleus must reach; from top_p = 1 on no sum does: the whole row."""
    return T.if_then_else(top_p < T.float32(1), top_p, T.float32(BOUND))


def pick(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(sorted, indices i32[b, width], sums, parts, uniform f32[s], row i32[s], top_p f32[b], tokens i32[s]).

    The nucleus is the shortest prefix whose probability reaches top_p, the whole row from top_p = 1 on.
    """
    return _pick(rows, cut=True)


def pick_unsorted(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(probabilities f32[b, width], sums, parts, uniform f32[s], row i32[s], tokens i32[s]): of all."""
    return _pick(rows, cut=False)


def _pick(rows: Rows, *, cut: bool) -> tvm.tirx.PrimFunc:
    """The first token whose cumulative probability exceeds uniform times that of the nucleus.

    That is TVM's `sample_top_p_top_k_from_sorted_prob`. One thread a sample walks tiles, parts and
    elements, some three hundred steps for a quarter of a million tokens. Rounding differs from level to
    level by an ulp, so a level that ends early takes its last element of positive probability.
    """
    blocks, threads = rows.loops()
    size, b, s = rows.width, rows.count("b"), rows.count("s")

    @script.prim_func(private=True, s_tir=True)
    def pick(
        vx: T.handle,
        vi: T.handle,
        vs: T.handle,
        vq: T.handle,
        vu: T.handle,
        vr: T.handle,
        vp: T.handle,
        vo: T.handle,
    ):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, size), "float32")
        index = T.match_buffer(vi, (b, size), "int32")
        total = T.match_buffer(vs, (b, tiles(size)), "float32")
        part = T.match_buffer(vq, (b, tiles(size) * THREADS), "float32")
        uniform = T.match_buffer(vu, (s,), "float32")
        row = T.match_buffer(vr, (s,), "int32")
        top_p = T.match_buffer(vp, (b,), "float32")
        token = T.match_buffer(vo, (s,), "int32")
        for bx in blocks(s):
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
                        goal[0] = T.min(uniform[bx], T.float32(BELOW_ONE)) * nucleus[0]
                        if turn == 0:
                            if cut:
                                goal[0] = nucleus_goal(top_p[rows.of(row, bx)])
                            else:
                                goal[0] = T.float32(BOUND)
                        place[turn] = -1
                        before[0] = T.float32(0)
                        tile[0] = -1
                        for i in T.serial(tiles(size)):
                            if tile[0] < 0:
                                if _reached(before[0] + total[rows.of(row, bx), i], goal[0], turn):
                                    tile[0] = i
                                else:
                                    before[0] = before[0] + total[rows.of(row, bx), i]
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
                                if open_[0] == 1 and part[
                                    rows.of(row, bx), tile[0] * THREADS + i
                                ] > T.float32(0):
                                    lane[0] = i
                                    before[1] = before[2]
                                    before[2] = before[2] + part[rows.of(row, bx), tile[0] * THREADS + i]
                                    if _reached(before[0] + before[2], goal[0], turn):
                                        open_[0] = 0
                            before[2] = T.float32(0)
                            open_[0] = 1
                            for k in T.serial(EACH):
                                if tile[0] * TILE + lane[0] * EACH + k < size and open_[0] == 1:
                                    if x[rows.of(row, bx), tile[0] * TILE + lane[0] * EACH + k] > T.float32(
                                        0
                                    ):
                                        place[turn] = tile[0] * TILE + lane[0] * EACH + k
                                        before[2] = (
                                            before[2]
                                            + x[rows.of(row, bx), tile[0] * TILE + lane[0] * EACH + k]
                                        )
                                        if _reached(before[0] + (before[1] + before[2]), goal[0], turn):
                                            open_[0] = 0
                            if turn == 0:
                                nucleus[0] = before[0] + (before[1] + before[2])
                    # Rounding may pick past the nucleus, or (its sum being an ulp more) nothing: its end.
                    if place[1] < 0 or (place[0] >= 0 and place[1] > place[0]):
                        place[1] = T.max(place[0], 0)
                    token[bx] = index[rows.of(row, bx), place[1]] if cut else place[1]

    return without_unused(pick)
