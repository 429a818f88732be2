"""Attention on GPUs, within the limits every WebGPU device offers: 256 threads, 32 KiB, 10 buffers.

Barriers stand in uniform control flow only: what bounds a loop around one is read from buffers that
the kernel does not write, at indices that all threads share (WGSL checks this when a shader is made).
"""

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels.attention import (
    LOG2_E,
    NONE,
    AttentionShape,
    first_visible,
    paged_decode,
    paged_prefill,
    ragged_prefill,
    visible,
)

THREADS = 256
SIDE = 16  # rows of queries and keys in a tile of the prefill kernel


def _padded(head_dim: int) -> int:
    return (head_dim + SIDE - 1) // SIDE * SIDE


def _slice(padded: int, limit: int) -> int:
    """The widest slice of the head, a multiple of 16 up to `limit`, that divides it evenly."""
    return max(s for s in range(SIDE, limit + 1, SIDE) if padded % s == 0)


def _prefill_body(shape: AttentionShape) -> Any:
    """Tiles of 16 query rows by 16 keys; a row is a (token, head) pair of one key head's group.

    Thread (ty, tx) computes score [ty, tx] and columns tx, tx + 16, ... of output row ty. Queries
    stay in shared memory; keys, then values, pass through it in slices of the head.
    """
    d, group, dtype = shape.head_dim, shape.group, shape.dtype
    padded = _padded(d)
    width = _slice(padded, 64)
    slices, columns = padded // width, width // SIDE

    @T.macro
    def body(q, qi, keys, qp, kp, o, lse, B, n, sm_scale):
        # Each sequence may leave one tile partly filled, hence + B.
        for bx in T.thread_binding(T.floordiv(n * group, SIDE) + B, thread="blockIdx.x"):
            for by in T.thread_binding(shape.num_kv_heads, thread="blockIdx.y"):
                for ty in T.thread_binding(SIDE, thread="threadIdx.y"):
                    for tx in T.thread_binding(SIDE, thread="threadIdx.x"):
                        with T.sblock("attention"):
                            T.reads()
                            T.writes()
                            qs = T.sblock_alloc_buffer((SIDE, padded), "float32", scope="shared")
                            kv = T.sblock_alloc_buffer((width, SIDE), "float32", scope="shared")
                            score = T.sblock_alloc_buffer((SIDE, SIDE), "float32", scope="shared")
                            prob = T.sblock_alloc_buffer((SIDE, SIDE), "float32", scope="shared")
                            acc = T.sblock_alloc_buffer((slices * columns,), "float32", scope="local")
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
                                qs[ty, s * SIDE + tx] = T.if_then_else(
                                    token < length and s * SIDE + tx < d,
                                    T.Cast("float32", q[first + token, head, s * SIDE + tx]),
                                    T.float32(0),
                                )
                                acc[s] = T.float32(0)
                            at[2] = qp[T.min(first + at[1] * SIDE // group, n - 1)]
                            at[3] = at[2]
                            for t in T.serial(
                                T.min(length - 1, (at[1] * SIDE + SIDE - 1) // group) - at[1] * SIDE // group
                            ):
                                at[2] = T.min(at[2], qp[first + at[1] * SIDE // group + 1 + t])
                                at[3] = T.max(at[3], qp[first + at[1] * SIDE // group + 1 + t])
                            at[4] = T.min(key_length, first_visible(at[2], kstart, sm_scale, shape))
                            at[5] = T.max(at[4], T.min(key_length, at[3] - kstart + 1))
                            st[0] = T.float32(NONE)
                            st[1] = T.float32(0)
                            for tile in T.serial(T.ceildiv(at[5] - at[4], SIDE)):
                                start: T.let[T.int32] = at[4] + tile * SIDE
                                st[2] = T.float32(0)
                                for s in T.serial(slices):
                                    T.tvm_storage_sync("shared")
                                    for c in T.serial(columns):
                                        kv[c * SIDE + tx, ty] = T.if_then_else(
                                            start + ty < key_length and s * width + c * SIDE + tx < d,
                                            keys(b)[1](start + ty, by, s * width + c * SIDE + tx),
                                            T.float32(0),
                                        )
                                    T.tvm_storage_sync("shared")
                                    for x in T.serial(width):
                                        st[2] += qs[ty, s * width + x] * kv[x, tx]
                                score[ty, tx] = T.if_then_else(
                                    token < length
                                    and start + tx < key_length
                                    and visible(
                                        kstart + start + tx,
                                        qp[T.min(first + token, n - 1)],
                                        sm_scale,
                                        shape,
                                    ),
                                    st[2] * T.abs(sm_scale) * T.float32(LOG2_E),
                                    T.float32(NONE),
                                )
                                T.tvm_storage_sync("shared")
                                st[3] = st[0]
                                for c in T.serial(SIDE):
                                    st[0] = T.max(st[0], score[ty, c])
                                prob[ty, tx] = T.if_then_else(
                                    score[ty, tx] > T.float32(NONE),
                                    T.exp2(score[ty, tx] - st[0]),
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


def _decode_body(shape: AttentionShape) -> Any:
    """One workgroup a sequence and key head: all query heads of the group against tiles of keys.

    Scores are spread over the threads as (head, key) pairs, outputs as (head, element) pairs.
    """
    d, group, dtype = shape.head_dim, shape.group, shape.dtype
    padded = _padded(d)
    width = _slice(padded, 32)
    # TVM's sync planner tells threads apart by their index, which a row of one head would fold away.
    rows = max(group, 2)
    # Keys in a tile: enough to occupy the threads, few enough for shared memory.
    tile_keys = max(16, min(64, THREADS // group))
    scores = (group * tile_keys + THREADS - 1) // THREADS
    outputs = (group * d + THREADS - 1) // THREADS
    loads = tile_keys * width // THREADS

    @T.macro
    def body(q, keys, qp, kp, o, lse, B, sm_scale):
        for b in T.thread_binding(B, thread="blockIdx.x"):
            for by in T.thread_binding(shape.num_kv_heads, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("attention"):
                        T.reads()
                        T.writes()
                        qs = T.sblock_alloc_buffer((group, padded), "float32", scope="shared")
                        ks = T.sblock_alloc_buffer((width, tile_keys), "float32", scope="shared")
                        # Read and written apart: TVM's sync planner takes one buffer for a race.
                        score = T.sblock_alloc_buffer((rows, tile_keys), "float32", scope="shared")
                        prob = T.sblock_alloc_buffer((rows, tile_keys), "float32", scope="shared")
                        # per head: maximum, sum, factor for what came before this tile
                        top = T.sblock_alloc_buffer((rows,), "float32", scope="shared")
                        total = T.sblock_alloc_buffer((rows,), "float32", scope="shared")
                        fade = T.sblock_alloc_buffer((rows,), "float32", scope="shared")
                        part = T.sblock_alloc_buffer((scores,), "float32", scope="local")
                        acc = T.sblock_alloc_buffer((outputs,), "float32", scope="local")
                        one = T.sblock_alloc_buffer((4,), "float32", scope="local")
                        at = T.sblock_alloc_buffer((2,), "int32", scope="local")
                        kstart: T.let[T.int32] = kp[b]
                        key_length: T.let[T.int32] = keys(b)[0]
                        at[0] = T.min(key_length, first_visible(qp[b], kstart, sm_scale, shape))
                        at[1] = T.max(at[0], T.min(key_length, qp[b] - kstart + 1))
                        for i in T.serial(T.ceildiv(group * padded, THREADS)):
                            if i * THREADS + tx < group * padded:
                                qs[(i * THREADS + tx) // padded, (i * THREADS + tx) % padded] = (
                                    T.if_then_else(
                                        (i * THREADS + tx) % padded < d,
                                        T.Cast(
                                            "float32",
                                            q[
                                                b,
                                                by * group + (i * THREADS + tx) // padded,
                                                (i * THREADS + tx) % padded,
                                            ],
                                        ),
                                        T.float32(0),
                                    )
                                )
                        if tx < rows:
                            top[tx] = T.float32(NONE)
                            total[tx] = T.float32(0)
                        for i in T.serial(outputs):
                            acc[i] = T.float32(0)
                        for tile in T.serial(T.ceildiv(at[1] - at[0], tile_keys)):
                            start: T.let[T.int32] = at[0] + tile * tile_keys
                            for i in T.serial(scores):
                                part[i] = T.float32(0)
                            for s in T.serial(padded // width):
                                T.tvm_storage_sync("shared")
                                for i in T.serial(loads):
                                    ks[(i * THREADS + tx) % width, (i * THREADS + tx) // width] = (
                                        T.if_then_else(
                                            start + (i * THREADS + tx) // width < key_length
                                            and s * width + (i * THREADS + tx) % width < d,
                                            keys(b)[1](
                                                start + (i * THREADS + tx) // width,
                                                by,
                                                s * width + (i * THREADS + tx) % width,
                                            ),
                                            T.float32(0),
                                        )
                                    )
                                T.tvm_storage_sync("shared")
                                for i in T.serial(scores):
                                    if i * THREADS + tx < group * tile_keys:
                                        for x in T.serial(width):
                                            part[i] += (
                                                qs[(i * THREADS + tx) // tile_keys, s * width + x]
                                                * ks[x, (i * THREADS + tx) % tile_keys]
                                            )
                            for i in T.serial(scores):
                                if i * THREADS + tx < group * tile_keys:
                                    score[(i * THREADS + tx) // tile_keys, (i * THREADS + tx) % tile_keys] = (
                                        T.if_then_else(
                                            start + (i * THREADS + tx) % tile_keys < at[1],
                                            part[i] * T.abs(sm_scale) * T.float32(LOG2_E),
                                            T.float32(NONE),
                                        )
                                    )
                            T.tvm_storage_sync("shared")
                            if tx < rows:
                                one[0] = top[tx]
                                one[1] = total[tx]
                                one[3] = one[0]
                                for c in T.serial(tile_keys):
                                    one[0] = T.max(one[0], score[tx, c])
                                one[3] = T.exp2(one[3] - one[0])
                                one[1] = one[1] * one[3]
                                for c in T.serial(tile_keys):
                                    one[2] = T.if_then_else(
                                        score[tx, c] > T.float32(NONE),
                                        T.exp2(score[tx, c] - one[0]),
                                        T.float32(0),
                                    )
                                    prob[tx, c] = one[2]
                                    one[1] += one[2]
                                top[tx] = one[0]
                                total[tx] = one[1]
                                fade[tx] = one[3]
                            T.tvm_storage_sync("shared")
                            for i in T.serial(outputs):
                                if i * THREADS + tx < group * d:
                                    acc[i] = acc[i] * fade[(i * THREADS + tx) // d]
                                    for c in T.serial(T.min(tile_keys, at[1] - start)):
                                        acc[i] += prob[(i * THREADS + tx) // d, c] * keys(b)[2](
                                            start + c, by, (i * THREADS + tx) % d
                                        )
                        T.tvm_storage_sync("shared")
                        for i in T.serial(outputs):
                            if i * THREADS + tx < group * d:
                                o[b, by * group + (i * THREADS + tx) // d, (i * THREADS + tx) % d] = T.Cast(
                                    dtype,
                                    T.if_then_else(
                                        total[(i * THREADS + tx) // d] > T.float32(0),
                                        acc[i] / total[(i * THREADS + tx) // d],
                                        T.float32(0),
                                    ),
                                )
                        if tx < group:
                            lse[b, by * group + tx] = T.if_then_else(
                                total[tx] > T.float32(0),
                                top[tx] + T.log2(total[tx]),
                                T.float32(NONE),
                            )

    return body


def prefill_ragged(shape: AttentionShape) -> tvm.tirx.PrimFunc:
    """Queries against the keys of their own chunk."""
    return ragged_prefill(shape, _prefill_body(shape))


def prefill_paged(shape: AttentionShape) -> tvm.tirx.PrimFunc:
    """Queries against the keys in the cache."""
    return paged_prefill(shape, _prefill_body(shape))


def decode_paged(shape: AttentionShape) -> tvm.tirx.PrimFunc:
    """One query a sequence against the keys in the cache."""
    return paged_decode(shape, _decode_body(shape))


def merge(shape: AttentionShape) -> tvm.tirx.PrimFunc:
    """Join the outputs over two sets of keys, in place in the first.

    One thread reads and writes lse and hands the weights to the others through shared memory: TVM's
    own kernel let all threads read what one of them overwrites.
    """
    hq, d, dtype = shape.num_heads, shape.head_dim, shape.dtype

    @T.prim_func(private=True, s_tir=True)
    def attention_merge(vo: T.handle, vl: T.handle, vo2: T.handle, vl2: T.handle):
        T.func_attr({"tirx.is_scheduled": True})
        n = T.int32()
        o = T.match_buffer(vo, (n, hq, d), dtype)
        lse = T.match_buffer(vl, (n, hq), "float32")
        o2 = T.match_buffer(vo2, (n, hq, d), dtype)
        lse2 = T.match_buffer(vl2, (n, hq), "float32")
        for i in T.thread_binding(n, thread="blockIdx.x"):
            for h in T.thread_binding(hq, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("merge"):
                        share = T.sblock_alloc_buffer((2,), "float32", scope="shared")
                        st = T.sblock_alloc_buffer((4,), "float32", scope="local")
                        if tx == 0:
                            st[0] = T.max(lse[i, h], lse2[i, h])
                            st[1] = T.exp2(lse[i, h] - st[0])
                            st[2] = T.exp2(lse2[i, h] - st[0])
                            st[3] = st[1] + st[2]
                            lse[i, h] = st[0] + T.log2(st[3])
                            share[0] = st[1] / st[3]
                            share[1] = st[2] / st[3]
                        T.tvm_storage_sync("shared")
                        for s in T.serial(T.ceildiv(d, THREADS)):
                            if s * THREADS + tx < d:
                                o[i, h, s * THREADS + tx] = T.Cast(
                                    dtype,
                                    T.Cast("float32", o[i, h, s * THREADS + tx]) * share[0]
                                    + T.Cast("float32", o2[i, h, s * THREADS + tx]) * share[1],
                                )

    return attention_merge
