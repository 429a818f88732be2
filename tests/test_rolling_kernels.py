"""Attention that rotates, for a rolling cache, against numpy: on the CPU and in real WebGPU (SwiftShader)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache
from tvm.target import Target
from webgpu_kernels.either import Device

from engine.embedded.kernels.attention import cpu, gpu
from engine.embedded.kernels.attention.shape import NONE, AttentionShape
from engine.embedded.kernels.attention.signatures import paged_decode, paged_prefill, ragged_prefill
from engine.embedded.kernels.simd import Simd
from engine.embedded.spec import RollingCache

F8 = NDArray[np.float64]
ROLLING = AttentionShape(
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    dtype="float32",
    window=None,
    rolling=RollingCache(window=40, sinks=5),
    rope_theta=1e4,
)
SHAPES = {
    "no sinks": replace(ROLLING, rolling=RollingCache(window=33, sinks=0)),
    "more sinks than a page, head not a multiple of 16": replace(
        ROLLING, num_heads=3, num_kv_heads=3, head_dim=40, rolling=RollingCache(window=40, sinks=20)
    ),
    "wide": replace(ROLLING, num_heads=4, num_kv_heads=1, head_dim=256, rope_theta=1e6),
    "far places": replace(ROLLING, rolling=RollingCache(window=4000, sinks=5)),
}


def _turned(x: F8, places: NDArray[Any], theta: float) -> F8:
    """[n, heads, d] at `places` [n] or, row by row of other queries, [rows, n]."""
    half = x.shape[-1] // 2
    turns = np.exp(1j * places[..., None, None] * theta ** -(np.arange(half) / half))
    pairs = (x[..., :half] + 1j * x[..., half:]) * turns
    return np.concatenate([pairs.real, pairs.imag], -1)


def reference(
    shape: AttentionShape, q: F8, k: F8, v: F8, places: NDArray[Any], key_places: NDArray[Any]
) -> tuple[F8, F8]:
    """Outputs [n, heads, d] and base 2 lse [n, heads] of queries and keys at those places, unrotated."""
    assert shape.rolling is not None
    window, sinks, theta = shape.rolling.window, shape.rolling.sinks, shape.rope_theta
    k, v = (np.repeat(a.astype("f8"), shape.group, axis=1) for a in (k, v))
    far = _turned(q.astype("f8"), np.minimum(places, window), theta)
    near = _turned(q.astype("f8"), places, theta)
    keys = _turned(k, key_places, theta)
    is_sink = key_places < sinks
    scores = np.where(
        is_sink, np.einsum("nhd,mhd->hnm", far, keys), np.einsum("nhd,mhd->hnm", near, keys)
    ) * (shape.head_dim**-0.5)
    distance = places[:, None] - key_places[None, :]
    seen = (distance >= 0) & (is_sink | (distance <= window - sinks))
    weights = np.where(seen, np.exp(scores), 0)
    total = weights.sum(-1)
    out = np.einsum("hnm,mhd->nhd", weights / np.where(total > 0, total, 1)[..., None], v)
    return out, np.where(total > 0, np.log2(np.where(total > 0, total, 1)), NONE).T


def _random(rng: np.random.Generator, *size: int) -> NDArray[np.float32]:
    return rng.normal(size=size).astype("f4")


def _i4(values: Any) -> NDArray[np.int32]:
    return np.asarray(values, "i4")


def _rolled(rng: np.random.Generator, shape: AttentionShape, lengths: list[int], gaps: list[int]) -> Any:
    """Pages of sequences of those lengths, with so many free slots between the sinks and the window."""
    assert shape.rolling is not None
    sinks = [shape.rolling.sinks if gap else 0 for gap in gaps]
    slots = [length + gap for length, gap in zip(lengths, gaps, strict=True)]
    counts = [-(-n // shape.page_size) for n in slots]
    order = rng.permutation(sum(counts) + 2)
    pool = np.full((len(order), 2, shape.num_kv_heads, shape.page_size, shape.head_dim), np.nan, "f4")
    indptr, values, keys, vals = [0], [], [], []
    for length, gap, sink, count in zip(lengths, gaps, sinks, counts, strict=True):
        mine = order[indptr[-1] : indptr[-1] + count]
        k, v = (_random(rng, length, shape.num_kv_heads, shape.head_dim) for _ in range(2))
        for j in range(length):
            slot = j if j < sink else j + gap
            pool[mine[slot // shape.page_size], 0, :, slot % shape.page_size] = k[j]
            pool[mine[slot // shape.page_size], 1, :, slot % shape.page_size] = v[j]
        values += mine.tolist()
        indptr.append(indptr[-1] + count)
        keys.append(k)
        vals.append(v)
    last = [(n - 1) % shape.page_size + 1 if n else 0 for n in slots]
    info = _i4([last, [s + g for s, g in zip(sinks, gaps, strict=True)], sinks])
    return pool, _i4(indptr), _i4(values), info, keys, vals


def _check(found: NDArray[Any], lse: NDArray[Any], want: F8, want_lse: F8) -> None:
    # Angles of thousands of places are right to some 1e-4 in float32, as they are in transformers.
    np.testing.assert_allclose(found, want, atol=1e-3)
    np.testing.assert_allclose(lse, want_lse, rtol=1e-3, atol=1e-3)


def _body(device: Device, name: str, shape: AttentionShape) -> Any:
    """The schedule's `name`, prefill_body or decode_body."""
    if device.gpu:
        return getattr(gpu, name)(shape)
    return getattr(cpu, name)(shape, Simd(lanes=4, registers=16))


def _sequences(shape: AttentionShape) -> tuple[list[int], list[int], list[int]]:
    """Cached lengths, gaps in their pages, and how many tokens come: empty, half full, just full, rolled."""
    assert shape.rolling is not None
    full = min(shape.rolling.window, 90)
    return [0, 2, full // 2, full, full, full], [0, 0, 0, 0, 7, 16], [9, 40, 3, 20, 1, 33]


@pytest.mark.parametrize("name", SHAPES)
def test_a_chunk_and_the_cache_before_it(device: Device, name: str) -> None:
    """Sinks in the cache, in the chunk, in both; queries within the window and beyond it."""
    shape, rng = SHAPES[name], np.random.default_rng(5)
    cached, gaps, lengths = _sequences(shape)
    pool, indptr, values, info, keys, vals = _rolled(rng, shape, cached, gaps)
    # Far: the cache holds places from 3900 on; what is before is another block's.
    starts = [3900 if name == "far places" else 0] * len(cached)
    q_indptr = np.concatenate([[0], np.cumsum(lengths)]).astype("i4")
    first = [s + c for s, c in zip(starts, cached, strict=True)]
    places = np.concatenate([np.arange(f, f + m) for f, m in zip(first, lengths, strict=True)])
    n = int(q_indptr[-1])
    q = _random(rng, n, shape.num_heads, shape.head_dim)
    k, v = (_random(rng, n, shape.num_kv_heads, shape.head_dim) for _ in range(2))
    body, scale = _body(device, "prefill_body", shape), shape.head_dim**-0.5
    for paged in (True, False):
        out, lse = np.full_like(q, np.nan), np.full(q.shape[:2], np.nan, "f4")
        if paged:
            device.call(
                paged_prefill(shape, body), q, q_indptr, pool, indptr, values, info, _i4(starts),
                _i4(places), out, lse, 0, 0, 1.0, 1.0, scale,
            )  # fmt: skip
        else:
            device.call(
                ragged_prefill(shape, body), q, q_indptr, k, v, q_indptr.copy(), _i4(places), _i4(first),
                out, lse, 1, 0, 1.0, 1.0, scale,
            )  # fmt: skip
        for i in range(len(cached)):
            rows = slice(q_indptr[i], q_indptr[i + 1])
            at = np.arange(starts[i], first[i]) if paged else places[rows]
            seen = (keys[i], vals[i]) if paged else (k[rows], v[rows])
            _check(out[rows], lse[rows], *reference(shape, q[rows], *seen, places[rows], at))


@pytest.mark.parametrize("name", SHAPES)
def test_decode_over_the_cache(device: Device, name: str) -> None:
    shape, rng = SHAPES[name], np.random.default_rng(6)
    cached, gaps, _ = _sequences(shape)
    pool, indptr, values, info, keys, vals = _rolled(rng, shape, cached, gaps)
    starts = [3900 if name == "far places" else 0] * len(cached)
    places = _i4(cached) + _i4(starts)
    q = _random(rng, len(cached), shape.num_heads, shape.head_dim)
    out, lse = np.full_like(q, np.nan), np.full(q.shape[:2], np.nan, "f4")
    device.call(
        paged_decode(shape, _body(device, "decode_body", shape)), q, pool, indptr, values, info,
        _i4(starts), places, out, lse, 0, 1.0, 1.0, shape.head_dim**-0.5,
    )  # fmt: skip
    for i, length in enumerate(cached):
        rows = slice(i, i + 1)
        at = np.arange(starts[i], starts[i] + length)
        _check(out[rows], lse[rows], *reference(shape, q[rows], keys[i], vals[i], places[rows], at))


def _tvms_cache(shape: AttentionShape) -> relax.VirtualMachine:
    """A layer of attention over TVM's own cache and kernels, on the CPU, as mlc_llm's Mistral has them."""
    no_effects = {"param_mode": "none", "effect_mode": "none"}
    heads, kv_heads, d = shape.num_heads, shape.num_kv_heads, shape.head_dim
    target = Target({"kind": "llvm"})

    class Layer(nn.Module):  # type: ignore[misc]
        def forward(self, qkv: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
            return cache.attention_with_fused_qkv(0, qkv, heads, sm_scale=d**-0.5)

        def create(self, sequences: Any, tokens: Any, chunk: Any, page: Any, rolls: Any) -> PagedKVCache:
            return TIRPagedKVCache(
                "mha", sequences, tokens, chunk, page, rolls, relax.ShapeExpr([0, 1]), 1, heads, kv_heads,
                d, d, 0, 0, RopeMode.NORMAL, 1, int(shape.rope_theta), {}, relax.prim_value(0), d, False,
                "float32", target,
            )  # fmt: skip

    sizes = dict.fromkeys(("sequences", "tokens", "chunk", "page", "rolls"), int)
    qkv = nn.spec.Tensor([1, "n", heads + 2 * kv_heads, d], "float32")
    module, _, _ = Layer().export_tvm(
        spec={
            "forward": {"qkv": qkv, "cache": nn.spec.Object(object_type=PagedKVCache), "$": no_effects},
            "create": {**sizes, "$": no_effects},
        },
        allow_extern=True,
    )
    return relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())


def test_tvms_kernels_agree_one_token_at_a_time() -> None:
    """What mlc_llm computes is what is stated here; in a chunk, though, its tokens see all that is kept."""
    shape, rng = ROLLING, np.random.default_rng(7)
    assert shape.rolling is not None
    window, n, tuples = shape.rolling.window, 100, tvm.runtime.ShapeTuple
    joined = _random(rng, n, shape.num_heads + 2 * shape.num_kv_heads, shape.head_dim)
    q, k, v = np.split(joined, [shape.num_heads, shape.num_heads + shape.num_kv_heads], axis=1)
    want, _ = reference(shape, q, k, v, np.arange(n), np.arange(n))
    vm = _tvms_cache(shape)

    def error(step: int) -> float:
        cache = vm["create"](*(tuples([size]) for size in (1, window, window, shape.page_size, 1)))
        tvm.get_global_func("vm.builtin.kv_state_add_sequence")(cache, 0)
        enable = tvm.get_global_func("vm.builtin.attention_kv_cache_enable_sliding_window_for_seq")
        enable(cache, 0, window, shape.rolling.sinks)
        worst = 0.0
        for at in range(0, n, step):
            fed = joined[None, at : at + step]
            tvm.get_global_func("vm.builtin.kv_state_begin_forward")(
                cache, tuples([0]), tuples([fed.shape[1]])
            )
            out = vm["forward"](tvm.runtime.tensor(fed), cache).numpy()[0]
            tvm.get_global_func("vm.builtin.kv_state_end_forward")(cache)
            worst = max(worst, float(np.abs(out - want[at : at + step]).max()))
        return worst

    assert error(1) < 1e-5
    assert error(20) > 0.1
