"""Rotary position embeddings of our own, applied before the cache sees keys.

The paged cache knows one rope base for all layers; Gemma 3 has two. So the cache runs without rope,
and each forward pass computes one table of cosines and sines per distinct base, which the layers of
that base share. Rotation pairs element j with j + head_dim/2, as transformers does for Llama and Gemma.
"""

import math
import struct
from functools import cache
from typing import Any

import tvm
from tvm import te
from tvm.script import tirx as T

from engine.embedded.spec import LayerSpec, RopeScaling

THREADS = 256

# 2 pi in two float32 parts: 201/32 has few bits, so k * HIGH is exact for every k in use.
_TWO_PI_HIGH = 6.28125
_TWO_PI_LOW = 2 * math.pi - _TWO_PI_HIGH


def _constant(value: float) -> Any:
    """`value` as float32, exactly: TVM writes float constants into shaders with seven digits."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return tvm.tirx.reinterpret("float32", tvm.tirx.const(bits, "uint32"))


def inverse_frequency(j: Any, head_dim: int, layer: LayerSpec) -> Any:
    """The angle per position of pair `j` (a TIR integer): theta^(-2j/head_dim), then scaled."""
    exponent = -2.0 * math.log2(layer.rope_theta) / head_dim
    # In two parts, j * high being exact: an exponent near -13 rounded to float32 would cost the
    # frequency three bits, which a position of some thousands turns into a visible angle.
    high = round(exponent * 2**14) / 2**14
    pair = j.astype("float32")
    base = tvm.tirx.exp2(pair * _constant(high)) * tvm.tirx.exp2(pair * _constant(exponent - high))
    return _scaled(base, layer.rope_scaling)


def _scaled(frequency: Any, scaling: RopeScaling | None) -> Any:
    """`transformers.modeling_rope_utils`: linear divides, llama3 divides only long wavelengths."""
    if scaling is None:
        return frequency
    if scaling.rope_type == "linear":
        return frequency / _constant(scaling.factor)
    length = scaling.original_max_position_embeddings
    low, high, factor = scaling.low_freq_factor, scaling.high_freq_factor, scaling.factor
    turns = frequency * _constant(length / (2 * math.pi))
    smooth = (turns - low) / _constant(high - low)
    smooth = tvm.tirx.max(tvm.tirx.min(smooth, tvm.tirx.const(1, "float32")), tvm.tirx.const(0, "float32"))
    return (1 - smooth) * frequency / _constant(factor) + smooth * frequency


def rope_table(positions: te.Tensor, head_dim: int, layer: LayerSpec) -> te.Tensor:
    """float32 [n, 2, head_dim/2]: cosines and sines of position * inverse frequency.

    The angle is brought into [-pi, pi] first: WGSL promises the accuracy of sin and cos only there.
    """

    def value(i: Any, part: Any, j: Any) -> Any:
        angle = positions[i].astype("float32") * inverse_frequency(j, head_dim, layer)
        turns = te.round(angle * _constant(1 / (2 * math.pi)))
        high, low = _constant(_TWO_PI_HIGH), _constant(_TWO_PI_LOW)
        reduced = (angle - turns * high) - turns * low
        return tvm.tirx.if_then_else(part == 0, te.cos(reduced), te.sin(reduced))

    return te.compute((positions.shape[0], 2, head_dim // 2), value, name="rope_table")


@cache
def rotate_qkv(
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    out_dtype: str,
    fused: bool,
    norm: tuple[float, str] | None,
    gpu: bool,
) -> tvm.tirx.PrimFunc:
    """Join q, k and v as the cache takes them, with qk-norm and rope applied to q and k.

    f(qkv or q, k, v; table; [q_norm, k_norm]; out): inputs float32 [n, heads * head_dim], `out`
    [n, num_heads + 2 * num_kv_heads, head_dim] in `out_dtype`. `norm` is (eps, dtype of the norm
    weights [head_dim]), None where the model has no qk-norm. No supported family has a fused qkv with
    qk-norm, or q, k, v apart without one: NotImplementedError.
    """
    hq, hkv, d, half = num_heads, num_kv_heads, head_dim, head_dim // 2
    body: Any = (_heads_gpu if gpu else _heads_cpu)(hq, hkv, d, out_dtype, norm[0] if norm else None)
    norm_dtype = norm[1] if norm else "float32"

    def fused_reader(qkv: Any) -> Any:
        return lambda i, h, x: qkv[i, h * d + x]

    def parts_reader(q: Any, k: Any, v: Any) -> Any:
        return lambda i, h, x: T.if_then_else(
            h < hq,
            q[i, h * d + x],
            T.if_then_else(h < hq + hkv, k[i, (h - hq) * d + x], v[i, (h - hq - hkv) * d + x]),
        )

    if fused != (norm is None):
        raise NotImplementedError("a fused qkv with qk-norm, or separate q, k, v without one")

    def norm_weight(qn: Any, kn: Any) -> Any:
        return lambda h, x: T.Cast("float32", T.if_then_else(h < hq, qn[x], kn[x]))

    def no_norm(h: Any, x: Any) -> Any:
        return T.float32(1)

    if fused:

        @T.prim_func(private=True, s_tir=True)
        def rotate_fused(vqkv: T.handle, vt: T.handle, vo: T.handle):
            T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
            n = T.int64()
            qkv = T.match_buffer(vqkv, (n, (hq + 2 * hkv) * d), "float32")
            table = T.match_buffer(vt, (n, 2, half), "float32")
            out = T.match_buffer(vo, (n, hq + 2 * hkv, d), out_dtype)
            body(fused_reader(qkv), table, no_norm, out, n)

        return rotate_fused

    @T.prim_func(private=True, s_tir=True)
    def rotate_parts(
        vq: T.handle, vk: T.handle, vv: T.handle, vt: T.handle, vqn: T.handle, vkn: T.handle, vo: T.handle
    ):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        q = T.match_buffer(vq, (n, hq * d), "float32")
        k = T.match_buffer(vk, (n, hkv * d), "float32")
        v = T.match_buffer(vv, (n, hkv * d), "float32")
        table = T.match_buffer(vt, (n, 2, half), "float32")
        qn = T.match_buffer(vqn, (d,), norm_dtype)
        kn = T.match_buffer(vkn, (d,), norm_dtype)
        out = T.match_buffer(vo, (n, hq + 2 * hkv, d), out_dtype)
        body(parts_reader(q, k, v), table, norm_weight(qn, kn), out, n)

    return rotate_parts


def _rotated(x: Any, table: Any, i: Any, h: Any, e: Any, d: int, rotated_heads: int) -> Any:
    """Element `e` of head `h` after rotation; `x(element)` reads the head; v heads pass through."""
    half = d // 2
    cos, sin = table[i, 0, e % half], table[i, 1, e % half]
    partner = T.if_then_else(e < half, -x((e + half) % d), x((e + half) % d))
    return T.if_then_else(h < rotated_heads, x(e) * cos + partner * sin, x(e))


def _normed(read: Any, i: Any, h: Any, weight: Any, rms: Any, rotated_heads: int) -> Any:
    """A reader of head `h` after its norm; `rms` is None where there is no qk-norm."""
    if rms is None:
        return lambda e: read(i, h, e)
    return lambda e: T.if_then_else(h < rotated_heads, read(i, h, e) * rms[0] * weight(h, e), read(i, h, e))


def _heads_gpu(hq: int, hkv: int, d: int, out_dtype: str, eps: float | None) -> Any:
    """One workgroup a token and head; the norm's sum is reduced in shared memory."""
    steps = (d + THREADS - 1) // THREADS

    @T.macro
    def body(read, table, weight, out, n):
        for bx in T.thread_binding(n, thread="blockIdx.x"):
            for h in T.thread_binding(hq + 2 * hkv, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("rotate"):
                        partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                        rms = T.sblock_alloc_buffer((1,), "float32", scope="local")
                        if eps is not None:
                            rms[0] = T.float32(0)
                            for s in T.serial(steps):
                                if s * THREADS + tx < d:
                                    rms[0] += read(bx, h, s * THREADS + tx) * read(bx, h, s * THREADS + tx)
                            partial[tx] = rms[0]
                            T.tvm_storage_sync("shared")
                            for i in T.unroll(8):
                                if tx < T.shift_right(128, i):
                                    partial[tx] = partial[tx] + partial[tx + T.shift_right(128, i)]
                                T.tvm_storage_sync("shared")
                            rms[0] = T.float32(1) / T.sqrt(partial[0] / T.float32(d) + T.float32(eps))
                        for s in T.serial(steps):
                            if s * THREADS + tx < d:
                                out[bx, h, s * THREADS + tx] = T.Cast(
                                    out_dtype,
                                    _rotated(
                                        _normed(
                                            read, bx, h, weight, rms if eps is not None else None, hq + hkv
                                        ),
                                        table,
                                        bx,
                                        h,
                                        s * THREADS + tx,
                                        d,
                                        hq + hkv,
                                    ),
                                )

    return body


def _heads_cpu(hq: int, hkv: int, d: int, out_dtype: str, eps: float | None) -> Any:
    @T.macro
    def body(read, table, weight, out, n):
        for i in T.serial(n):
            for h in T.serial(hq + 2 * hkv):
                with T.sblock("rotate"):
                    rms = T.sblock_alloc_buffer((1,), "float32")
                    if eps is not None:
                        rms[0] = T.float32(0)
                        for e in T.serial(d):
                            rms[0] += read(i, h, e) * read(i, h, e)
                        rms[0] = T.float32(1) / T.sqrt(rms[0] / T.float32(d) + T.float32(eps))
                    for e in T.serial(d):
                        out[i, h, e] = T.Cast(
                            out_dtype,
                            _rotated(
                                _normed(read, i, h, weight, rms if eps is not None else None, hq + hkv),
                                table,
                                i,
                                h,
                                e,
                                d,
                                hq + hkv,
                            ),
                        )

    return body
