"""Rotary position embeddings of our own, applied before the cache sees keys.

The paged cache knows one rope base for all layers; Gemma 3 has two. So the cache runs without rope,
and each forward pass computes one table of cosines and sines per distinct base, which the layers of
that base share. Rotation pairs element j with j + rotary_dim/2, as transformers does for every family
here; elements from rotary_dim on pass through.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import te
from tvm.script import tirx as T

from engine.embedded.kernels import script
from engine.embedded.kernels.arithmetic import exact, wave
from engine.embedded.kernels.optional import without_unused
from engine.embedded.spec import DecoderSpec, LayerSpec, RopeScaling

THREADS = 256
FEW = 4


def inverse_frequencies(rotary_dim: int, layer: LayerSpec, context: int) -> NDArray[np.float32]:
    """Radians per position of each rotated pair, theta^(-2j/rotary_dim) and then scaled: [rotary_dim/2].

    `context` is how many tokens a sequence may have, which longrope depends on.
    """
    base = layer.rope_theta ** (-2.0 * np.arange(rotary_dim // 2) / rotary_dim)
    return _scaled(base, layer.rope_scaling, context).astype(np.float32)


def _scaled(
    frequencies: NDArray[np.float64], scaling: RopeScaling | None, context: int
) -> NDArray[np.float64]:
    """`transformers.modeling_rope_utils`: linear divides, llama3 and yarn divide only long wavelengths.

    longrope divides each pair by a factor of its own. transformers takes the short factors while a
    sequence fits `original_max_position_embeddings` and computes all its keys anew with the long
    ones when it grows past. Keys in a cache stay as they were rotated, so the choice is made here, by
    how long a sequence may get: for a context within the original one every result is that of
    transformers, for a longer one those of sequences that do get longer.
    """
    if scaling is None:
        return frequencies
    if scaling.rope_type == "linear":
        return np.asarray(frequencies / scaling.factor)
    if scaling.rope_type == "yarn":
        return np.asarray(frequencies / np.asarray(scaling.short_factor))
    length = scaling.original_max_position_embeddings
    if scaling.rope_type == "longrope":
        factors = scaling.long_factor if context > length else scaling.short_factor
        return np.asarray(frequencies / np.asarray(factors))
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = frequencies * length / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray((1 - smooth) * frequencies / scaling.factor + smooth * frequencies)


def rope_table(positions: te.Tensor, frequencies: te.Tensor, *, factor: float) -> te.Tensor:
    """float32 [n, 2, pairs]: cosines and sines of position * frequency, times `factor`.

    `positions` is int32 [n], `frequencies` float32 [pairs].
    """

    def value(i: Any, part: Any, j: Any) -> Any:
        found = wave(positions[i].astype("float32") * frequencies[j], part.astype("int32"))
        return found if factor == 1 else found * exact(factor)

    return te.compute((positions.shape[0], 2, frequencies.shape[0]), value, name="rope_table")


@cache
def rotate_qkv(spec: DecoderSpec, *, weight_dtype: str, out_dtype: str, gpu: bool) -> tvm.tirx.PrimFunc:
    """Join q, k and v as the cache takes them, with bias, qk-norm and rope as `spec` has them.

    f(qkv or q, k, v; [their biases]; [table]; [q_norm, k_norm]; out): the products are float32
    [n, features] in the spec's `qkv_layout`, the table is that of `rope_table`, biases and norm weights
    are `weight_dtype`, `out` is [n, num_attention_heads + 2 * num_key_value_heads, head_dim]. The table
    is left out where nothing is rotated.
    """
    hq, hkv, d = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
    heads, pairs = hq + 2 * hkv, max(spec.rotary_dim // 2, 1)
    widths = (hq * d, hkv * d) if spec.qk_norm == "full" else (d, d)
    body: Any = (_heads_gpu if gpu else _heads_cpu)(spec, out_dtype)

    def apart(q: Any, k: Any, v: Any, qb: Any, kb: Any, vb: Any) -> Any:
        readers = (
            _biased(q, qb, lambda h, x: h * d + x),
            _biased(k, kb, lambda h, x: (h - hq) * d + x),
            _biased(v, vb, lambda h, x: (h - hq - hkv) * d + x),
        )
        return lambda i, h, x: T.if_then_else(
            h < hq,
            readers[0](i, h, x),
            T.if_then_else(h < hq + hkv, readers[1](i, h, x), readers[2](i, h, x)),
        )

    def norm_weight(qn: Any, kn: Any) -> Any:
        """The weight of element x of head h, a query's or a key's."""
        if spec.qk_norm == "full":
            return lambda h, x: T.if_then_else(h < hq, qn[h * d + x], kn[(h - hq) * d + x])
        return lambda h, x: T.if_then_else(h < hq, qn[x], kn[x])

    if spec.qkv_layout == "joined":

        @script.prim_func(private=True, s_tir=True)
        def of_joined(vqkv: T.handle, vb: T.handle, vt: T.handle, vqn: T.handle, vkn: T.handle, vo: T.handle):
            T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
            n = T.int64()
            qkv = T.match_buffer(vqkv, (n, heads * d), "float32")
            bias = T.match_buffer(vb, (heads * d,), weight_dtype)
            table = T.match_buffer(vt, (n, 2, pairs), "float32")
            qn = T.match_buffer(vqn, (widths[0],), weight_dtype)
            kn = T.match_buffer(vkn, (widths[1],), weight_dtype)
            out = T.match_buffer(vo, (n, heads, d), out_dtype)
            body(
                _biased(qkv, bias if spec.qkv_bias else None, lambda h, x: h * d + x),
                table,
                norm_weight(qn, kn),
                out,
                n,
            )

        return without_unused(of_joined)

    @script.prim_func(private=True, s_tir=True)
    def of_parts(
        vq: T.handle,
        vk: T.handle,
        vv: T.handle,
        vqb: T.handle,
        vkb: T.handle,
        vvb: T.handle,
        vt: T.handle,
        vqn: T.handle,
        vkn: T.handle,
        vo: T.handle,
    ):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        q = T.match_buffer(vq, (n, hq * d), "float32")
        k = T.match_buffer(vk, (n, hkv * d), "float32")
        v = T.match_buffer(vv, (n, hkv * d), "float32")
        qb = T.match_buffer(vqb, (hq * d,), weight_dtype)
        kb = T.match_buffer(vkb, (hkv * d,), weight_dtype)
        vb = T.match_buffer(vvb, (hkv * d,), weight_dtype)
        table = T.match_buffer(vt, (n, 2, pairs), "float32")
        qn = T.match_buffer(vqn, (widths[0],), weight_dtype)
        kn = T.match_buffer(vkn, (widths[1],), weight_dtype)
        out = T.match_buffer(vo, (n, heads, d), out_dtype)
        body(
            apart(q, k, v, *((qb, kb, vb) if spec.qkv_bias else (None, None, None))),
            table,
            norm_weight(qn, kn),
            out,
            n,
        )

    return without_unused(of_parts)


def _biased(products: Any, bias: Any, column: Any) -> Any:
    """A reader (token, head, element) of `products` + `bias` (None for none), stored at `column`."""
    if bias is None:
        return lambda i, h, x: products[i, column(h, x)]
    return lambda i, h, x: products[i, column(h, x)] + T.Cast("float32", bias[column(h, x)])


def _norm_heads(spec: DecoderSpec, h: Any) -> tuple[Any, Any]:
    """The first of the heads that head `h` is normed with, and how many those are.

    For a value, which is not normed, keys stand in: barriers must not stand in a branch.
    """
    hq, hkv = spec.num_attention_heads, spec.num_key_value_heads
    if spec.qk_norm == "full":
        return T.if_then_else(h < hq, 0, hq), T.if_then_else(h < hq, hq, hkv)
    return h, 1


def _rotated(spec: DecoderSpec, read: Any, table: Any, weight: Any, rms: Any, i: Any, h: Any, e: Any) -> Any:
    """Element `e` of head `h` after its norm (by `rms`) and rotation; values pass through."""
    normed_heads, r = spec.num_attention_heads + spec.num_key_value_heads, spec.rotary_dim

    def normed(x: Any) -> Any:
        if spec.qk_norm is None:
            return read(i, h, x)
        return read(i, h, x) * rms[0] * T.Cast("float32", weight(h, x))

    if r == 0:
        value = normed(e)
    else:
        cos, sin = table[i, 0, e % (r // 2)], table[i, 1, e % (r // 2)]
        partner = T.if_then_else(e < r // 2, -normed((e + r // 2) % r), normed((e + r // 2) % r))
        value = normed(e) * cos + partner * sin
        if r < spec.head_dim:
            value = T.if_then_else(e < r, value, normed(e))
    return T.if_then_else(h < normed_heads, value, read(i, h, e))


def _heads_gpu(spec: DecoderSpec, out_dtype: str) -> Any:
    """One workgroup a token and head; the norm's sum is reduced in shared memory."""
    hq, hkv, d = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
    eps = spec.norm_eps
    most = max(hq, hkv) if spec.qk_norm == "full" else 1

    @script.macro
    def body(read, table, weight, out, n):
        for bx in T.thread_binding(n, thread="blockIdx.x"):
            for h in T.thread_binding(hq + 2 * hkv, thread="blockIdx.y"):
                for tx in T.thread_binding(THREADS, thread="threadIdx.x"):
                    with T.sblock("rotate_qkv"):
                        partial = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                        rms = T.sblock_alloc_buffer((1,), "float32", scope="local")
                        if spec.qk_norm is not None:
                            rms[0] = T.float32(0)
                            for s in T.serial(-(-most * d // THREADS)):
                                if s * THREADS + tx < _norm_heads(spec, h)[1] * d:
                                    rms[0] += read(
                                        bx,
                                        _norm_heads(spec, h)[0] + (s * THREADS + tx) // d,
                                        (s * THREADS + tx) % d,
                                    ) * read(
                                        bx,
                                        _norm_heads(spec, h)[0] + (s * THREADS + tx) // d,
                                        (s * THREADS + tx) % d,
                                    )
                            partial[tx] = rms[0]
                            T.tvm_storage_sync("shared")
                            for i in T.unroll(8):
                                if tx < T.shift_right(128, i):
                                    partial[tx] = partial[tx] + partial[tx + T.shift_right(128, i)]
                                T.tvm_storage_sync("shared")
                            rms[0] = T.float32(1) / T.sqrt(
                                partial[0] / T.Cast("float32", _norm_heads(spec, h)[1] * d) + T.float32(eps)
                            )
                        for s in T.serial(-(-d // THREADS)):
                            if s * THREADS + tx < d:
                                out[bx, h, s * THREADS + tx] = T.Cast(
                                    out_dtype,
                                    _rotated(spec, read, table, weight, rms, bx, h, s * THREADS + tx),
                                )

    return body


def _heads_cpu(spec: DecoderSpec, out_dtype: str) -> Any:
    hq, hkv, d = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
    eps = spec.norm_eps

    @script.macro
    def token(read, table, weight, out, i):
        for h in T.serial(hq + 2 * hkv):
            with T.sblock("rotate_qkv"):
                rms = T.sblock_alloc_buffer((1,), "float32")
                if spec.qk_norm is not None:
                    rms[0] = T.float32(0)
                    for g in T.serial(_norm_heads(spec, h)[1]):
                        for e in T.serial(d):
                            rms[0] += read(i, _norm_heads(spec, h)[0] + g, e) * read(
                                i, _norm_heads(spec, h)[0] + g, e
                            )
                    rms[0] = T.float32(1) / T.sqrt(
                        rms[0] / T.Cast("float32", _norm_heads(spec, h)[1] * d) + T.float32(eps)
                    )
                for e in T.serial(d):
                    out[i, h, e] = T.Cast(out_dtype, _rotated(spec, read, table, weight, rms, i, h, e))

    @script.macro
    def body(read, table, weight, out, n):
        # Waking other threads takes longer than a token.
        if n > FEW:
            for i in T.parallel(n):
                token(read, table, weight, out, i)
        else:
            for i in T.serial(n):
                token(read, table, weight, out, i)

    return body
