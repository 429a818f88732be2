"""Top-p without a sort: what is too improbable becomes 0, and the rest sums to 1.

The smallest probability that is kept is found by its bits, which order non-negative floats: three bits at
a time, from the highest down, the largest threshold whose row still reaches top_p. Probabilities that
equal it are kept, all of them, as in mlc_llm (`op/top_p_pivot.py`). Sums are taken in a fixed order.
"""

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.sampling.pick import nucleus_goal
from engine.embedded.kernels.sampling.rows import THREADS, Rows

DIGIT = 3
THRESHOLDS = 2**DIGIT - 1
DIGITS = 10
"""Below 2.0 a float32 has 30 bits that are not 0."""
SHARE = 16
"""Threads that sum one threshold's sums, each of as many."""
# What a top_p of 0 is taken for: something of a row is always kept.
LEAST = 1e-30


def _bits(value: Any) -> Any:
    return T.reinterpret("int32", value)


def _threshold(found: Any, digit: Any, step: Any) -> Any:
    """`found` with `step` for the digit that is looked for; digit 0 is the highest."""
    return found + T.shift_left(step, (DIGITS - 1 - digit) * DIGIT)


def renormalize(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(probabilities f32[b, width], top_p f32[b], out f32[b, width])."""
    body = _renormalize_gpu(rows.width) if rows.gpu else _renormalize_cpu(rows.width)
    b = rows.count("b")

    @script.prim_func(private=True, s_tir=True)
    def renormalize(vx: T.handle, vp: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, rows.width), "float32")
        top_p = T.match_buffer(vp, (b,), "float32")
        y = T.match_buffer(vy, (b, rows.width), "float32")
        body(x, top_p, y, b)

    return renormalize


def _renormalize_gpu(size: int) -> Any:
    """One workgroup a row; the last pass sums what is kept, at the threshold that was found."""

    @script.macro
    def body(x, top_p, y, b):
        for r in T.thread_binding(b, thread="blockIdx.x"):
            for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("row"):
                    sums = T.sblock_alloc_buffer((THRESHOLDS, THREADS), "float32", scope="shared")
                    shares = T.sblock_alloc_buffer((THRESHOLDS, SHARE), "float32", scope="shared")
                    acc = T.sblock_alloc_buffer((THRESHOLDS,), "float32", scope="local")
                    found = T.sblock_alloc_buffer((1,), "int32", scope="local")
                    step = T.sblock_alloc_buffer((1,), "int32", scope="local")
                    found[0] = 0
                    for digit in T.serial(DIGITS + 1):
                        for j in T.unroll(THRESHOLDS):
                            acc[j] = T.float32(0)
                        for k in T.serial(-(-size // THREADS)):
                            if k * THREADS + tx < size:
                                if digit == DIGITS:
                                    if _bits(x[r, k * THREADS + tx]) >= found[0]:
                                        acc[0] += x[r, k * THREADS + tx]
                                else:
                                    for j in T.unroll(THRESHOLDS):
                                        if _bits(x[r, k * THREADS + tx]) >= _threshold(
                                            found[0], digit, j + 1
                                        ):
                                            acc[j] += x[r, k * THREADS + tx]
                        for j in T.unroll(THRESHOLDS):
                            sums[j, tx] = acc[j]
                        T.tvm_storage_sync("shared")
                        if tx < THRESHOLDS * SHARE:
                            acc[0] = T.float32(0)
                            for i in T.serial(THREADS // SHARE):
                                acc[0] += sums[tx // SHARE, tx % SHARE * (THREADS // SHARE) + i]
                            shares[tx // SHARE, tx % SHARE] = acc[0]
                        T.tvm_storage_sync("shared")
                        for j in T.unroll(THRESHOLDS):
                            acc[j] = T.float32(0)
                            for i in T.serial(SHARE):
                                acc[j] += shares[j, i]
                        if digit < DIGITS:
                            step[0] = 0
                            for j in T.unroll(THRESHOLDS):
                                if acc[j] >= T.max(nucleus_goal(top_p[r]), T.float32(LEAST)):
                                    step[0] = j + 1
                            found[0] = _threshold(found[0], digit, step[0])
                    for k in T.serial(-(-size // THREADS)):
                        if k * THREADS + tx < size:
                            y[r, k * THREADS + tx] = T.if_then_else(
                                _bits(x[r, k * THREADS + tx]) >= found[0],
                                x[r, k * THREADS + tx] / acc[0],
                                T.float32(0),
                            )

    return body


def _renormalize_cpu(size: int) -> Any:
    """Sums of THREADS neighbours, then their sum: a plain running sum would lose digits."""

    @script.macro
    def body(x, top_p, y, b):
        for r in T.serial(b):
            with T.sblock("row"):
                acc = T.sblock_alloc_buffer((THRESHOLDS,), "float32")
                sums = T.sblock_alloc_buffer((THRESHOLDS,), "float32")
                found = T.sblock_alloc_buffer((1,), "int32")
                step = T.sblock_alloc_buffer((1,), "int32")
                found[0] = 0
                for digit in T.serial(DIGITS + 1):
                    for j in T.unroll(THRESHOLDS):
                        sums[j] = T.float32(0)
                    for k in T.serial(-(-size // THREADS)):
                        for j in T.unroll(THRESHOLDS):
                            acc[j] = T.float32(0)
                        for i in T.serial(T.min(THREADS, size - k * THREADS)):
                            if digit == DIGITS:
                                if _bits(x[r, k * THREADS + i]) >= found[0]:
                                    acc[0] += x[r, k * THREADS + i]
                            else:
                                for j in T.unroll(THRESHOLDS):
                                    if _bits(x[r, k * THREADS + i]) >= _threshold(found[0], digit, j + 1):
                                        acc[j] += x[r, k * THREADS + i]
                        for j in T.unroll(THRESHOLDS):
                            sums[j] += acc[j]
                    if digit < DIGITS:
                        step[0] = 0
                        for j in T.unroll(THRESHOLDS):
                            if sums[j] >= T.max(nucleus_goal(top_p[r]), T.float32(LEAST)):
                                step[0] = j + 1
                        found[0] = _threshold(found[0], digit, step[0])
                for k in T.serial(size):
                    y[r, k] = T.if_then_else(_bits(x[r, k]) >= found[0], x[r, k] / sums[0], T.float32(0))

    return body
