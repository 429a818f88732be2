"""Changes to logits before they become probabilities: bias, penalties, and the mask of a grammar.

Each kernel changes its first argument, logits f32[1, vocab_size]. The arithmetic is mlc_llm's
(`compiler_pass/attach_logit_processor.py`). A token id outside the vocabulary changes nothing.
"""

# ruff: noqa: SIM102  an `and` reads both its sides on a CPU, so a bound needs an `if` of its own

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels.sort import THREADS, loops

FORBIDDEN = -3.4028234663852886e38
"""The logit of a token that the mask forbids: the lowest finite float32."""
_FORBIDDEN_BITS = 0xFF7FFFFF  # TVM writes decimal constants with seven digits into WGSL, too few for this one


def add_bias(size: int, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(logits, token_ids i32[n], bias f32[n]): logits[token] += bias; tokens are distinct."""
    blocks, threads = loops(gpu)

    @T.prim_func(private=True, s_tir=True)
    def add_bias(vx: T.handle, vt: T.handle, vb: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        logits = T.match_buffer(vx, (1, size), "float32")
        token = T.match_buffer(vt, (n,), "int32")
        bias = T.match_buffer(vb, (n,), "float32")
        for bx in blocks(T.ceildiv(n, THREADS)):
            for tx in threads(THREADS):
                with T.sblock("token"):
                    if bx * THREADS + tx < n:
                        if token[bx * THREADS + tx] >= 0 and token[bx * THREADS + tx] < size:
                            logits[0, token[bx * THREADS + tx]] += bias[bx * THREADS + tx]

    return add_bias


def penalize(size: int, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(logits, token_ids i32[n], counts i32[n], penalties f32[1, 3]) for the distinct tokens seen so far.

    logit -= presence + count * frequency; then a positive logit is divided by the repetition
    penalty and a negative one multiplied by it, so that either gets less likely.
    """
    blocks, threads = loops(gpu)

    @T.prim_func(private=True, s_tir=True)
    def penalize(vx: T.handle, vt: T.handle, vc: T.handle, vp: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        logits = T.match_buffer(vx, (1, size), "float32")
        token = T.match_buffer(vt, (n,), "int32")
        count = T.match_buffer(vc, (n,), "int32")
        penalty = T.match_buffer(vp, (1, 3), "float32")
        for bx in blocks(T.ceildiv(n, THREADS)):
            for tx in threads(THREADS):
                with T.sblock("token"):
                    logit = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    if bx * THREADS + tx < n:
                        if token[bx * THREADS + tx] >= 0 and token[bx * THREADS + tx] < size:
                            logit[0] = logits[0, token[bx * THREADS + tx]] - (
                                penalty[0, 0] + T.Cast("float32", count[bx * THREADS + tx]) * penalty[0, 1]
                            )
                            logits[0, token[bx * THREADS + tx]] = T.if_then_else(
                                logit[0] < T.float32(0), logit[0] * penalty[0, 2], logit[0] / penalty[0, 2]
                            )

    return penalize


def forbid(size: int, gpu: bool) -> tvm.tirx.PrimFunc:
    """f(logits, bitmask i32[1, ceil(size / 32)]): where bit i % 32 of word i / 32 is 0, FORBIDDEN."""
    blocks, threads = loops(gpu)

    @T.prim_func(private=True, s_tir=True)
    def forbid(vx: T.handle, vm: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        logits = T.match_buffer(vx, (1, size), "float32")
        mask = T.match_buffer(vm, (1, -(-size // 32)), "int32")
        for bx in blocks(-(-size // THREADS)):
            for tx in threads(THREADS):
                with T.sblock("token"):
                    if bx * THREADS + tx < size:
                        if (
                            T.bitwise_and(T.shift_right(mask[0, bx * (THREADS // 32) + tx // 32], tx % 32), 1)
                            == 0
                        ):
                            logits[0, bx * THREADS + tx] = T.reinterpret("float32", T.uint32(_FORBIDDEN_BITS))

    return forbid
