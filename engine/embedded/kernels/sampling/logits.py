"""Changes to logits before they become probabilities: bias, penalties, and the mask of a grammar.

Each kernel changes its first argument, logits f32[b, width]. The arithmetic is mlc_llm's
(`compiler_pass/attach_logit_processor.py`). A token id outside the vocabulary changes nothing.
Indices of rows are arguments only where there are several rows.
"""

# ruff: noqa: SIM102  an `and` reads both its sides on a CPU, so a bound needs an `if` of its own

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.optional import without_unused
from engine.embedded.kernels.sampling.rows import THREADS, Rows

FORBIDDEN = -3.4028234663852886e38
"""The logit of a token that the mask forbids: the lowest finite float32."""
_FORBIDDEN_BITS = 0xFF7FFFFF  # TVM writes decimal constants with seven digits into WGSL, too few for this one


def add_bias(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(logits, row i32[n], token i32[n], bias f32[n]): logits[row, token] += bias.

    Pairs of row and token are distinct.
    """
    blocks, threads = rows.loops()
    size, b = rows.width, rows.count("b")

    @script.prim_func(private=True, s_tir=True)
    def add_bias(vx: T.handle, vr: T.handle, vt: T.handle, vb: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        logits = T.match_buffer(vx, (b, size), "float32")
        row = T.match_buffer(vr, (n,), "int32")
        token = T.match_buffer(vt, (n,), "int32")
        bias = T.match_buffer(vb, (n,), "float32")
        for bx in blocks(rows.groups(n)):
            for tx in threads(THREADS):
                with T.sblock("token"):
                    if bx * THREADS + tx < n:
                        if token[bx * THREADS + tx] >= 0 and token[bx * THREADS + tx] < size:
                            logits[rows.of(row, bx * THREADS + tx), token[bx * THREADS + tx]] += bias[
                                bx * THREADS + tx
                            ]

    return without_unused(add_bias)


def penalize(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(logits, row i32[r], which i32[n], token i32[n], count i32[n], penalties f32[r, 3]).

    Entry i is about a token seen so far in row[which[i]], once for each. logit -= presence + count *
    frequency; then a positive logit is divided by the repetition penalty and a negative one multiplied
    by it, so that either gets less likely. A new sequence has seen nothing: n may be 0.
    """
    blocks, threads = rows.loops()
    size, b, penalized = rows.width, rows.count("b"), rows.count("r")

    @script.prim_func(private=True, s_tir=True)
    def penalize(vx: T.handle, vr: T.handle, vw: T.handle, vt: T.handle, vc: T.handle, vp: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        logits = T.match_buffer(vx, (b, size), "float32")
        row = T.match_buffer(vr, (penalized,), "int32")
        which = T.match_buffer(vw, (n,), "int32")
        token = T.match_buffer(vt, (n,), "int32")
        count = T.match_buffer(vc, (n,), "int32")
        penalty = T.match_buffer(vp, (penalized, 3), "float32")
        for bx in blocks(rows.groups(n)):
            for tx in threads(THREADS):
                with T.sblock("token"):
                    logit = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    if bx * THREADS + tx < n:
                        if token[bx * THREADS + tx] >= 0 and token[bx * THREADS + tx] < size:
                            logit[0] = logits[
                                rows.of(row, rows.of(which, bx * THREADS + tx)), token[bx * THREADS + tx]
                            ] - (
                                penalty[rows.of(which, bx * THREADS + tx), 0]
                                + T.Cast("float32", count[bx * THREADS + tx])
                                * penalty[rows.of(which, bx * THREADS + tx), 1]
                            )
                            logits[
                                rows.of(row, rows.of(which, bx * THREADS + tx)), token[bx * THREADS + tx]
                            ] = T.if_then_else(
                                logit[0] < T.float32(0),
                                logit[0] * penalty[rows.of(which, bx * THREADS + tx), 2],
                                logit[0] / penalty[rows.of(which, bx * THREADS + tx), 2],
                            )

    return without_unused(penalize)


def forbid(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(logits, row i32[r], mask i32[b, ceil(width / 32)]): FORBIDDEN where the bit of a token is 0.

    Bit i % 32 of word i / 32 is that of token i; the masks of rows that are not named are not read.
    """
    blocks, threads = rows.loops()
    size, b, masked = rows.width, rows.count("b"), rows.count("r")

    @script.prim_func(private=True, s_tir=True)
    def forbid(vx: T.handle, vr: T.handle, vm: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        logits = T.match_buffer(vx, (b, size), "float32")
        row = T.match_buffer(vr, (masked,), "int32")
        mask = T.match_buffer(vm, (b, -(-size // 32)), "int32")
        for r in rows.over(masked):
            for bx in blocks(-(-size // THREADS)):
                for tx in threads(THREADS):
                    with T.sblock("token"):
                        if bx * THREADS + tx < size:
                            if (
                                T.bitwise_and(
                                    T.shift_right(
                                        mask[rows.of(row, r), bx * (THREADS // 32) + tx // 32], tx % 32
                                    ),
                                    1,
                                )
                                == 0
                            ):
                                logits[rows.of(row, r), bx * THREADS + tx] = T.reinterpret(
                                    "float32", T.uint32(_FORBIDDEN_BITS)
                                )

    return without_unused(forbid)
