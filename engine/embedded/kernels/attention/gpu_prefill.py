"""Prefill on GPUs: tiles of query rows against tiles of keys."""

from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.attention.gpu_limits import SIDE, padded, slice_width
from engine.embedded.kernels.attention.rolling import aim_of, query_place, turned
from engine.embedded.kernels.attention.shape import (
    NONE,
    AttentionShape,
    end_of_keys,
    first_key,
    flat_element,
    score,
    visible,
)


def prefill_body(shape: AttentionShape) -> Any:
    """Tiles of 16 query rows by 16 keys; a row is a (token, head) pair of one key head's group.

    Thread (ty, tx) computes score [ty, tx] and columns tx, tx + 16, ... of output row ty. Queries
    stay in shared memory; keys, then values, pass through it in slices of the head.
    """
    d, group, dtype = shape.head_dim, shape.group, shape.dtype
    whole = padded(d)
    width = slice_width(whole, 64)
    slices, columns = whole // width, width // SIDE

    aim = aim_of(shape)

    @script.macro
    def body(q, qi, keys, qp, kp, o, lse, B, n, sm_scale):
        # Each sequence may leave one tile partly filled, hence + B.
        for bx in T.thread_binding(T.floordiv(n * group, SIDE) + B, thread="blockIdx.x"):
            for by in T.thread_binding(shape.num_kv_heads, thread="blockIdx.y"):
                for ty in T.thread_binding(SIDE, thread="threadIdx.y"):
                    for tx in T.thread_binding(SIDE, thread="threadIdx.x"):
                        with T.sblock("attention"):
                            T.reads()
                            T.writes()
                            qs = T.sblock_alloc_buffer((SIDE, whole), "float32", scope="shared")
                            kv = T.sblock_alloc_buffer((width, SIDE), "float32", scope="shared")
                            seen = T.sblock_alloc_buffer((SIDE, SIDE), "float32", scope="shared")
                            prob = T.sblock_alloc_buffer((SIDE, SIDE), "float32", scope="shared")
                            acc = T.sblock_alloc_buffer((slices * columns,), "float32", scope="local")
                            turn = T.sblock_alloc_buffer((3,), "float32", scope="local")
                            # maximum, sum, this score, maximum before this tile
                            st = T.sblock_alloc_buffer((4,), "float32", scope="local")
                            # sequence, tile in it, lowest and highest query position, begin, end
                            at = T.sblock_alloc_buffer((6,), "int32", scope="local")
                            at[0] = -1
                            at[1] = bx
                            for b in T.serial(B):
                                if at[0] < 0:
                                    if at[1] < T.ceildiv((qi[b + 1] - qi[b]) * group, SIDE):
                                        at[0] = b
                                    else:
                                        at[1] = at[1] - T.ceildiv((qi[b + 1] - qi[b]) * group, SIDE)
                            # A block without a tile goes through the motions with no rows and no keys:
                            # barriers must not stand in a branch.
                            b: T.let[T.int32] = T.max(at[0], 0)
                            first: T.let[T.int32] = qi[b]
                            length: T.let[T.int32] = T.if_then_else(at[0] < 0, 0, qi[b + 1] - qi[b])
                            token: T.let[T.int32] = (at[1] * SIDE + ty) // group
                            head: T.let[T.int32] = by * group + (at[1] * SIDE + ty) % group
                            kstart: T.let[T.int32] = kp[b]
                            key_length: T.let[T.int32] = T.if_then_else(at[0] < 0, 0, keys(b)[0])
                            for s in T.serial(slices * columns):
                                acc[s] = T.float32(0)
                            at[2] = qp[T.min(first + at[1] * SIDE // group, n - 1)]
                            at[3] = at[2]
                            for t in T.serial(
                                T.min(length - 1, (at[1] * SIDE + SIDE - 1) // group) - at[1] * SIDE // group
                            ):
                                at[2] = T.min(at[2], qp[first + at[1] * SIDE // group + 1 + t])
                                at[3] = T.max(at[3], qp[first + at[1] * SIDE // group + 1 + t])
                            st[0] = T.float32(NONE)
                            st[1] = T.float32(0)
                            for span in T.serial(shape.spans):
                                for s in T.serial(slices * columns):
                                    aim(
                                        turn,
                                        query_place(span, qp[T.min(first + token, n - 1)], shape),
                                        s * SIDE + tx,
                                    )
                                    qs[ty, s * SIDE + tx] = T.if_then_else(
                                        token < length and s * SIDE + tx < d,
                                        turned(
                                            flat_element(q, first), (token, head, s * SIDE + tx), turn, shape
                                        ),
                                        T.float32(0),
                                    )
                                at[4] = first_key(span, at[2], kstart, key_length, sm_scale, shape)
                                at[5] = end_of_keys(span, at[4], at[3], kstart, key_length, shape)
                                for tile in T.serial(T.ceildiv(at[5] - at[4], SIDE)):
                                    start: T.let[T.int32] = at[4] + tile * SIDE
                                    st[2] = T.float32(0)
                                    for s in T.serial(slices):
                                        T.tvm_storage_sync("shared")
                                        for c in T.serial(columns):
                                            aim(turn, kstart + start + ty, s * width + c * SIDE + tx)
                                            kv[c * SIDE + tx, ty] = T.if_then_else(
                                                start + ty < key_length and s * width + c * SIDE + tx < d,
                                                turned(
                                                    keys(b)[1],
                                                    (start + ty, by, s * width + c * SIDE + tx),
                                                    turn,
                                                    shape,
                                                ),
                                                T.float32(0),
                                            )
                                        T.tvm_storage_sync("shared")
                                        for x in T.serial(width):
                                            st[2] += qs[ty, s * width + x] * kv[x, tx]
                                    seen[ty, tx] = T.if_then_else(
                                        token < length
                                        and start + tx < key_length
                                        and visible(
                                            span,
                                            kstart + start + tx,
                                            qp[T.min(first + token, n - 1)],
                                            sm_scale,
                                            shape,
                                        ),
                                        score(st[2], sm_scale, shape),
                                        T.float32(NONE),
                                    )
                                    T.tvm_storage_sync("shared")
                                    st[3] = st[0]
                                    for c in T.serial(SIDE):
                                        st[0] = T.max(st[0], seen[ty, c])
                                    prob[ty, tx] = T.if_then_else(
                                        seen[ty, tx] > T.float32(NONE),
                                        T.exp2(seen[ty, tx] - st[0]),
                                        T.float32(0),
                                    )
                                    st[3] = T.exp2(st[3] - st[0])
                                    st[1] = st[1] * st[3]
                                    for s in T.serial(slices * columns):
                                        acc[s] = acc[s] * st[3]
                                    for s in T.serial(slices):
                                        T.tvm_storage_sync("shared")
                                        for c in T.serial(columns):
                                            kv[c * SIDE + tx, ty] = T.if_then_else(
                                                start + ty < key_length and s * width + c * SIDE + tx < d,
                                                keys(b)[2](start + ty, by, s * width + c * SIDE + tx),
                                                T.float32(0),
                                            )
                                        T.tvm_storage_sync("shared")
                                        for c in T.serial(columns):
                                            for j in T.serial(SIDE):
                                                acc[s * columns + c] += prob[ty, j] * kv[c * SIDE + tx, j]
                                    for j in T.serial(SIDE):
                                        st[1] += prob[ty, j]
                            if token < length:
                                for s in T.serial(slices * columns):
                                    if s * SIDE + tx < d:
                                        o[first + token, head, s * SIDE + tx] = T.Cast(
                                            dtype,
                                            T.if_then_else(
                                                st[1] > T.float32(0),
                                                acc[s] / st[1],
                                                T.float32(0),
                                            ),
                                        )
                                if tx == 0:
                                    lse[first + token, head] = T.if_then_else(
                                        st[1] > T.float32(0),
                                        st[0] + T.log2(st[1]),
                                        T.float32(NONE),
                                    )

    return body
