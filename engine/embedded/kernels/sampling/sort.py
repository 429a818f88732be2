"""Descending argsort of a vocabulary, as a merge sort: sorted runs first, then passes that merge pairs.

Every pass but the first is the same kernel with another width, so a device compiles two small shaders.
Neither has barriers or workgroup memory, which software devices run slowly, and the CPU runs the same code.
Order: by value, largest first, and by index where values are equal. Values compare by their bits, which
is a total order: -0 is below +0, and a NaN keeps its place at an end instead of losing other elements.
"""

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.sampling.rows import THREADS, Rows

RUN = 64
"""Elements of a run of the first pass, which compares each with each."""
CHUNK = 16
"""Elements one thread merges; every run is a multiple of it."""


def ordered(value: Any) -> Any:
    """A uint32 that compares as the float32 `value` does: sign bit flipped, or all bits of a negative."""
    bits = T.reinterpret("uint32", value)
    negative = T.bitwise_and(bits, T.uint32(0x80000000)) != T.uint32(0)
    return T.Select(negative, T.bitwise_not(bits), T.bitwise_or(bits, T.uint32(0x80000000)))


def sort_runs(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(values f32[b, width], sorted f32[b, width], indices i32[b, width]): each RUN sorted by itself.

    Every element counts those of its run that come before it, and that is its place: no element
    waits for another, so there is no barrier, and neighbouring threads read the same elements.
    """
    blocks, threads = rows.loops()
    size, b = rows.width, rows.count("b")

    @script.prim_func(private=True, s_tir=True)
    def sort_runs(vx: T.handle, vs: T.handle, vi: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, size), "float32")
        out = T.match_buffer(vs, (b, size), "float32")
        index = T.match_buffer(vi, (b, size), "int32")
        for r in rows.over(b):
            for bx in blocks(-(-size // THREADS)):
                for tx in threads(THREADS):
                    with T.sblock("element"):
                        key = T.sblock_alloc_buffer((2,), "uint32", scope="local")
                        # the element, the first of its run, its place
                        at = T.sblock_alloc_buffer((3,), "int32", scope="local")
                        at[0] = bx * THREADS + tx
                        if at[0] < size:
                            at[1] = at[0] - at[0] % RUN
                            at[2] = at[1]
                            key[0] = ordered(x[r, at[0]])
                            for k in T.serial(RUN):
                                if at[1] + k < size:
                                    key[1] = ordered(x[r, at[1] + k])
                                    if key[1] > key[0] or (key[1] == key[0] and at[1] + k < at[0]):
                                        at[2] = at[2] + 1
                            out[r, at[2]] = x[r, at[0]]
                            index[r, at[2]] = at[0]

    return sort_runs


def merge_runs(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(values, indices, width, merged values, merged indices): runs of `width` merged to runs of twice that.

    Each thread writes CHUNK elements: a binary search on its diagonal of the merge tells how many of
    the elements before its own came from the left run (Green, McColl and Bader, GPU Merge Path, 2012).
    Indices of the left run are the smaller ones, so equal values take the left first.
    """
    blocks, threads = rows.loops()
    size, b = rows.width, rows.count("b")
    chunks = -(-size // CHUNK)
    group = THREADS if rows.gpu else 1

    @script.prim_func(private=True, s_tir=True)
    def merge_runs(vx: T.handle, vi: T.handle, width: T.int32, vy: T.handle, vj: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, size), "float32")
        xi = T.match_buffer(vi, (b, size), "int32")
        y = T.match_buffer(vy, (b, size), "float32")
        yi = T.match_buffer(vj, (b, size), "int32")
        for r in rows.over(b):
            for bx in blocks(-(-chunks // group)):
                for tx in threads(group):
                    with T.sblock("chunk"):
                        # left begin, left end, right end; then how much of each is taken; then search bounds
                        run = T.sblock_alloc_buffer((3,), "int32", scope="local")
                        at = T.sblock_alloc_buffer((2,), "int32", scope="local")
                        low = T.sblock_alloc_buffer((1,), "int32", scope="local")
                        high = T.sblock_alloc_buffer((1,), "int32", scope="local")
                        first = T.sblock_alloc_buffer((1,), "int32", scope="local")
                        first[0] = (bx * group + tx) * CHUNK
                        if first[0] < size:
                            run[0] = first[0] - T.truncmod(first[0], width * 2)
                            run[1] = T.min(run[0] + width, size)
                            run[2] = T.min(run[0] + width * 2, size)
                            low[0] = T.max(0, first[0] - run[0] - (run[2] - run[1]))
                            high[0] = T.min(first[0] - run[0], run[1] - run[0])
                            for _step in T.serial(size.bit_length()):
                                if low[0] < high[0]:
                                    at[0] = T.shift_right(low[0] + high[0], 1)
                                    at[1] = run[1] + (first[0] - run[0]) - 1 - at[0]
                                    if ordered(x[r, run[0] + at[0]]) >= ordered(x[r, at[1]]):
                                        low[0] = at[0] + 1
                                    else:
                                        high[0] = at[0]
                            at[0] = run[0] + low[0]
                            at[1] = run[1] + (first[0] - run[0]) - low[0]
                            for k in T.serial(CHUNK):
                                if first[0] + k < size:
                                    if at[0] < run[1] and (
                                        at[1] >= run[2]
                                        or ordered(x[r, T.min(at[0], size - 1)])
                                        >= ordered(x[r, T.min(at[1], size - 1)])
                                    ):
                                        y[r, first[0] + k] = x[r, at[0]]
                                        yi[r, first[0] + k] = xi[r, at[0]]
                                        at[0] = at[0] + 1
                                    else:
                                        y[r, first[0] + k] = x[r, at[1]]
                                        yi[r, first[0] + k] = xi[r, at[1]]
                                        at[1] = at[1] + 1

    return merge_runs
