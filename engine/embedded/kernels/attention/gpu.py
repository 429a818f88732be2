"""The GPU schedule: bodies of prefill, decode and merge."""

from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.attention.gpu_decode import decode_body
from engine.embedded.kernels.attention.gpu_limits import THREADS
from engine.embedded.kernels.attention.gpu_prefill import prefill_body
from engine.embedded.kernels.attention.shape import AttentionShape

__all__ = ["decode_body", "merge_body", "prefill_body"]


def merge_body(shape: AttentionShape) -> Any:
    """The body of the merge kernel.

    One thread reads and writes lse and hands the weights to the others through shared memory: TVM's
    own kernel let all threads read what one of them overwrites.
    """
    hq, d, dtype = shape.num_heads, shape.head_dim, shape.dtype

    @script.macro
    def body(o, lse, o2, lse2, n):
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

    return body
