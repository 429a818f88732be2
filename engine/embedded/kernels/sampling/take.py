"""Probabilities of chosen tokens, for `logprobs`."""

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.sampling.rows import THREADS, Rows


def take_probs(rows: Rows) -> tvm.tirx.PrimFunc:
    """f(probabilities, sorted indices i32[b, width], row i32[s], token i32[s], offset i32[k], ...).

    Written are the probability f32[s] of each token, then f32[k] and i32[k], the probability and the
    token at each offset, which is row * width + rank. There may be no offset at all.
    """
    blocks, threads = rows.loops()
    size, b, s, k = rows.width, rows.count("b"), rows.count("s"), tvm.tirx.Var("k", "int64")

    @script.prim_func(private=True, s_tir=True)
    def take_probs(
        vx: T.handle,
        vi: T.handle,
        vr: T.handle,
        vt: T.handle,
        vo: T.handle,
        vs: T.handle,
        vp: T.handle,
        vn: T.handle,
    ):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        x = T.match_buffer(vx, (b, size), "float32")
        index = T.match_buffer(vi, (b, size), "int32")
        row = T.match_buffer(vr, (s,), "int32")
        token = T.match_buffer(vt, (s,), "int32")
        offset = T.match_buffer(vo, (k,), "int32")
        sampled = T.match_buffer(vs, (s,), "float32")
        prob = T.match_buffer(vp, (k,), "float32")
        ranked = T.match_buffer(vn, (k,), "int32")
        for bx in blocks(rows.groups(s + k)):
            for tx in threads(THREADS):
                with T.sblock("entry"):
                    at = T.sblock_alloc_buffer((2,), "int32", scope="local")
                    if bx * THREADS + tx < s:
                        sampled[bx * THREADS + tx] = x[
                            rows.of(row, bx * THREADS + tx), token[bx * THREADS + tx]
                        ]
                    elif bx * THREADS + tx < s + k:
                        at[0] = T.truncdiv(offset[bx * THREADS + tx - s], size)
                        at[1] = index[at[0], T.truncmod(offset[bx * THREADS + tx - s], size)]
                        prob[bx * THREADS + tx - s] = x[at[0], at[1]]
                        ranked[bx * THREADS + tx - s] = at[1]

    return take_probs
