"""Attention on the CPU: one task a sequence and head, keys visited once with an online softmax."""

from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels.attention.shape import (
    NONE,
    AttentionShape,
    first_visible,
    score,
    visible,
)


def _row(shape: AttentionShape) -> Any:
    """One query row against all its visible keys; `st` holds maximum, sum, score, new maximum."""
    d, dtype, group = shape.head_dim, shape.dtype, shape.group

    @T.macro
    def row(q, key_length, key, value, qpos, kstart, o, lse, i, h, sm_scale):
        acc = T.sblock_alloc_buffer((d,), "float32")
        st = T.sblock_alloc_buffer((4,), "float32")
        begin = T.sblock_alloc_buffer((2,), "int32")
        st[0] = T.float32(NONE)
        st[1] = T.float32(0)
        for x in T.serial(d):
            acc[x] = T.float32(0)
        begin[0] = T.min(key_length, first_visible(qpos, kstart, sm_scale, shape))
        begin[1] = T.max(begin[0], T.min(key_length, qpos - kstart + 1))
        for jj in T.serial(begin[1] - begin[0]):
            if visible(kstart + begin[0] + jj, qpos, sm_scale, shape):
                st[2] = T.float32(0)
                for x in T.serial(d):
                    st[2] += T.Cast("float32", q[i, h, x]) * key(begin[0] + jj, h // group, x)
                st[2] = score(st[2], sm_scale, shape)
                st[3] = T.max(st[0], st[2])
                st[1] = st[1] * T.exp2(st[0] - st[3]) + T.exp2(st[2] - st[3])
                for x in T.serial(d):
                    acc[x] = acc[x] * T.exp2(st[0] - st[3]) + T.exp2(st[2] - st[3]) * value(
                        begin[0] + jj, h // group, x
                    )
                st[0] = st[3]
        for x in T.serial(d):
            o[i, h, x] = T.Cast(dtype, T.if_then_else(st[1] > T.float32(0), acc[x] / st[1], T.float32(0)))
        lse[i, h] = T.if_then_else(st[1] > T.float32(0), st[0] + T.log2(st[1]), T.float32(NONE))

    return row


def prefill_body(shape: AttentionShape) -> Any:
    """The body of both prefill kernels."""
    hq = shape.num_heads
    row = _row(shape)

    @T.macro
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

    @T.macro
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


def merge_body(shape: AttentionShape) -> Any:
    """The body of the merge kernel."""
    hq, d, dtype = shape.num_heads, shape.head_dim, shape.dtype

    @T.macro
    def body(o, lse, o2, lse2, n):
        for i in T.serial(n):
            for h in T.serial(hq):
                with T.sblock("merge"):
                    st = T.sblock_alloc_buffer((4,), "float32")
                    st[0] = T.max(lse[i, h], lse2[i, h])
                    st[1] = T.exp2(lse[i, h] - st[0])
                    st[2] = T.exp2(lse2[i, h] - st[0])
                    st[3] = st[1] + st[2]
                    for x in T.serial(d):
                        o[i, h, x] = T.Cast(
                            dtype,
                            (T.Cast("float32", o[i, h, x]) * st[1] + T.Cast("float32", o2[i, h, x]) * st[2])
                            / st[3],
                        )
                    lse[i, h] = st[0] + T.log2(st[3])

    return body
