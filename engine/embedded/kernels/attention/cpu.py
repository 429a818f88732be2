"""The CPU schedule: bodies of prefill, decode and merge."""

from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.attention import cpu_decode, cpu_prefill, cpu_rolling
from engine.embedded.kernels.attention.shape import AttentionShape
from engine.embedded.kernels.simd import Simd


def prefill_body(shape: AttentionShape, simd: Simd) -> Any:
    """The body of both prefill kernels."""
    if shape.rolling is not None:
        return cpu_rolling.prefill_body(shape)
    return cpu_prefill.prefill_body(shape, simd)


def decode_body(shape: AttentionShape, simd: Simd) -> Any:
    """The body of the decode kernel."""
    if shape.rolling is not None:
        return cpu_rolling.decode_body(shape)
    return cpu_decode.decode_body(shape, simd)


def merge_body(shape: AttentionShape) -> Any:
    """The body of the merge kernel, a task a token."""
    hq, d, dtype = shape.num_heads, shape.head_dim, shape.dtype

    @script.macro
    def body(o, lse, o2, lse2, n):
        for i in T.parallel(n):
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
