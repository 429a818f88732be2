"""Attention on the CPU with a rolling cache, row by row: a query is rotated for every key it meets.

One task a sequence and head; keys are visited once, with an online softmax.
"""

from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.attention.rolling import aim_of, query_place, turned
from engine.embedded.kernels.attention.shape import (
    NONE,
    AttentionShape,
    end_of_keys,
    first_key,
    flat_element,
    score,
)

KEYS_AT_ONCE = 16  # after which the rotation of a query is computed anew


def _row(shape: AttentionShape) -> Any:
    """One query row against all its visible keys; `st` holds maximum, sum, score, new maximum."""
    d, dtype, group = shape.head_dim, shape.dtype, shape.group
    half, aim = d // 2, aim_of(shape)

    @script.macro
    def take(read, st, acc, j, head):
        """Key j, whose product with the query is st[2]."""
        st[3] = T.max(st[0], st[2])
        st[1] = st[1] * T.exp2(st[0] - st[3]) + T.exp2(st[2] - st[3])
        for x in T.serial(d):
            acc[x] = acc[x] * T.exp2(st[0] - st[3]) + T.exp2(st[2] - st[3]) * read(j, head, x)
        st[0] = st[3]

    @script.macro
    def visit(q, key, value, span, at, qpos, kstart, i, h, sm_scale, st, acc):
        """Keys stay as they lie: the query is turned to each of them, by one place after another."""
        u = T.sblock_alloc_buffer((d,), "float32")
        step = T.sblock_alloc_buffer((2, half), "float32")
        kept = T.sblock_alloc_buffer((1,), "float32")
        turn = T.sblock_alloc_buffer((3,), "float32")
        for x in T.serial(half):
            aim(turn, 1, x)
            step[0, x] = turn[0]
            step[1, x] = turn[1]
        for block in T.serial(T.ceildiv(at[1] - at[0], KEYS_AT_ONCE)):
            at[2] = at[0] + block * KEYS_AT_ONCE
            for x in T.serial(d):
                aim(turn, query_place(span, qpos, shape) - (kstart + at[2]), x)
                u[x] = turned(flat_element(q, i), (0, h, x), turn, shape)
            for jj in T.serial(T.min(KEYS_AT_ONCE, at[1] - at[2])):
                st[2] = T.float32(0)
                for x in T.serial(d):
                    st[2] += u[x] * key(at[2] + jj, h // group, x)
                st[2] = score(st[2], sm_scale, shape)
                take(value, st, acc, at[2] + jj, h // group)
                for x in T.serial(half):
                    kept[0] = u[x]
                    u[x] = kept[0] * step[0, x] + u[x + half] * step[1, x]
                    u[x + half] = u[x + half] * step[0, x] - kept[0] * step[1, x]

    @script.macro
    def row(q, key_length, key, value, qpos, kstart, o, lse, i, h, sm_scale):
        acc = T.sblock_alloc_buffer((d,), "float32")
        st = T.sblock_alloc_buffer((4,), "float32")
        # begin and end of the span, first of the keys that share a rotation
        at = T.sblock_alloc_buffer((3,), "int32")
        st[0] = T.float32(NONE)
        st[1] = T.float32(0)
        for x in T.serial(d):
            acc[x] = T.float32(0)
        for span in T.serial(shape.spans):
            at[0] = first_key(span, qpos, kstart, key_length, sm_scale, shape)
            at[1] = end_of_keys(span, at[0], qpos, kstart, key_length, shape)
            visit(q, key, value, span, at, qpos, kstart, i, h, sm_scale, st, acc)
        for x in T.serial(d):
            o[i, h, x] = T.Cast(dtype, T.if_then_else(st[1] > T.float32(0), acc[x] / st[1], T.float32(0)))
        lse[i, h] = T.if_then_else(st[1] > T.float32(0), st[0] + T.log2(st[1]), T.float32(NONE))

    return row


def prefill_body(shape: AttentionShape) -> Any:
    """The body of both prefill kernels."""
    hq = shape.num_heads
    row = _row(shape)

    @script.macro
    def body(q, qi, keys, qp, kp, o, lse, B, n, sm_scale):
        for bh in T.parallel(B * hq):
            for t in T.serial(qi[bh // hq + 1] - qi[bh // hq]):
                with T.sblock("attention"):
                    row(
                        q,
                        keys(bh // hq)[0],
                        keys(bh // hq)[1],
                        keys(bh // hq)[2],
                        qp[qi[bh // hq] + t],
                        kp[bh // hq],
                        o,
                        lse,
                        qi[bh // hq] + t,
                        bh % hq,
                        sm_scale,
                    )

    return body


def decode_body(shape: AttentionShape) -> Any:
    """The body of the decode kernel."""
    hq = shape.num_heads
    row = _row(shape)

    @script.macro
    def body(q, keys, qp, kp, o, lse, B, sm_scale):
        for bh in T.parallel(B * hq):
            with T.sblock("attention"):
                row(
                    q,
                    keys(bh // hq)[0],
                    keys(bh // hq)[1],
                    keys(bh // hq)[2],
                    qp[bh // hq],
                    kp[bh // hq],
                    o,
                    lse,
                    bh // hq,
                    bh % hq,
                    sm_scale,
                )

    return body
