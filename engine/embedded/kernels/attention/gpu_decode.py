"""Decode on GPUs: one query of each head against tiles of keys."""

from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.attention.gpu_limits import THREADS, padded, slice_width
from engine.embedded.kernels.attention.rolling import aim_of, query_place, turned
from engine.embedded.kernels.attention.shape import (
    NONE,
    AttentionShape,
    end_of_keys,
    first_key,
    flat_element,
    score,
)


def decode_body(shape: AttentionShape) -> Any:
    """One workgroup a sequence and key head: all query heads of the group against tiles of keys.

    Scores are spread over the threads as (head, key) pairs, outputs as (head, element) pairs.
    """
    d, group, dtype = shape.head_dim, shape.group, shape.dtype
    whole = padded(d)
    width = slice_width(whole, 32)
    # TVM's sync planner tells threads apart by their index, which a row of one head would fold away.
    rows = max(group, 2)
    # Keys in a tile: enough to occupy the threads, few enough for shared memory.
    tile_keys = max(16, min(64, THREADS // group))
    scores = (group * tile_keys + THREADS - 1) // THREADS
    outputs = (group * d + THREADS - 1) // THREADS
    loads = tile_keys * width // THREADS

    aim = aim_of(shape)

    @script.macro
    def body(q, keys, qp, kp, o, lse, B, sm_scale):
        for b in T.thread_binding(B, thread="blockIdx.x"):
            for by in T.thread_binding(shape.num_kv_heads, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("attention"):
                        T.reads()
                        T.writes()
                        qs = T.sblock_alloc_buffer((group, whole), "float32", scope="shared")
                        ks = T.sblock_alloc_buffer((width, tile_keys), "float32", scope="shared")
                        # Read and written apart: TVM's sync planner takes one buffer for a race.
                        seen = T.sblock_alloc_buffer((rows, tile_keys), "float32", scope="shared")
                        prob = T.sblock_alloc_buffer((rows, tile_keys), "float32", scope="shared")
                        # per head: maximum, sum, factor for what came before this tile
                        top = T.sblock_alloc_buffer((rows,), "float32", scope="shared")
                        total = T.sblock_alloc_buffer((rows,), "float32", scope="shared")
                        fade = T.sblock_alloc_buffer((rows,), "float32", scope="shared")
                        part = T.sblock_alloc_buffer((scores,), "float32", scope="local")
                        acc = T.sblock_alloc_buffer((outputs,), "float32", scope="local")
                        one = T.sblock_alloc_buffer((4,), "float32", scope="local")
                        turn = T.sblock_alloc_buffer((3,), "float32", scope="local")
                        at = T.sblock_alloc_buffer((2,), "int32", scope="local")
                        kstart: T.let[T.int32] = kp[b]
                        key_length: T.let[T.int32] = keys(b)[0]
                        if tx < rows:
                            top[tx] = T.float32(NONE)
                            total[tx] = T.float32(0)
                        for i in T.serial(outputs):
                            acc[i] = T.float32(0)
                        for span in T.serial(shape.spans):
                            at[0] = first_key(span, qp[b], kstart, key_length, sm_scale, shape)
                            at[1] = end_of_keys(span, at[0], qp[b], kstart, key_length, shape)
                            for i in T.serial(T.ceildiv(group * whole, THREADS)):
                                if i * THREADS + tx < group * whole:
                                    aim(turn, query_place(span, qp[b], shape), (i * THREADS + tx) % whole)
                                    qs[(i * THREADS + tx) // whole, (i * THREADS + tx) % whole] = (
                                        T.if_then_else(
                                            (i * THREADS + tx) % whole < d,
                                            turned(
                                                flat_element(q, b),
                                                (
                                                    0,
                                                    by * group + (i * THREADS + tx) // whole,
                                                    (i * THREADS + tx) % whole,
                                                ),
                                                turn,
                                                shape,
                                            ),
                                            T.float32(0),
                                        )
                                    )
                            for tile in T.serial(T.ceildiv(at[1] - at[0], tile_keys)):
                                start: T.let[T.int32] = at[0] + tile * tile_keys
                                for i in T.serial(scores):
                                    part[i] = T.float32(0)
                                for s in T.serial(whole // width):
                                    T.tvm_storage_sync("shared")
                                    for i in T.serial(loads):
                                        aim(
                                            turn,
                                            kstart + start + (i * THREADS + tx) // width,
                                            s * width + (i * THREADS + tx) % width,
                                        )
                                        ks[(i * THREADS + tx) % width, (i * THREADS + tx) // width] = (
                                            T.if_then_else(
                                                start + (i * THREADS + tx) // width < key_length
                                                and s * width + (i * THREADS + tx) % width < d,
                                                turned(
                                                    keys(b)[1],
                                                    (
                                                        start + (i * THREADS + tx) // width,
                                                        by,
                                                        s * width + (i * THREADS + tx) % width,
                                                    ),
                                                    turn,
                                                    shape,
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
                                        seen[
                                            (i * THREADS + tx) // tile_keys, (i * THREADS + tx) % tile_keys
                                        ] = T.if_then_else(
                                            start + (i * THREADS + tx) % tile_keys < at[1],
                                            score(part[i], sm_scale, shape),
                                            T.float32(NONE),
                                        )
                                T.tvm_storage_sync("shared")
                                if tx < rows:
                                    one[0] = top[tx]
                                    one[1] = total[tx]
                                    one[3] = one[0]
                                    for c in T.serial(tile_keys):
                                        one[0] = T.max(one[0], seen[tx, c])
                                    one[3] = T.exp2(one[3] - one[0])
                                    one[1] = one[1] * one[3]
                                    for c in T.serial(tile_keys):
                                        one[2] = T.if_then_else(
                                            seen[tx, c] > T.float32(NONE),
                                            T.exp2(seen[tx, c] - one[0]),
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
