"""Our attention kernels against numpy, on the CPU and in a real WebGPU (SwiftShader)."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from webgpu_kernels.device import WebGPU
from webgpu_kernels.either import Device

from engine.embedded.kernels.attention import cpu, gpu
from engine.embedded.kernels.attention.shape import NONE, AttentionShape
from engine.embedded.kernels.attention.signatures import merge, paged_decode, paged_prefill, ragged_prefill
from engine.embedded.kernels.simd import Simd

BASE = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=32, dtype="float32", window=16)
SHAPES = {
    "grouped": BASE,
    "no window": replace(BASE, window=None),
    "one head": replace(BASE, num_heads=1, num_kv_heads=1, head_dim=16),
    "head not a multiple of 16": replace(BASE, num_heads=3, num_kv_heads=3, head_dim=40),
    "odd": replace(BASE, head_dim=21),
    "group not a divisor of 16": replace(BASE, num_heads=6, num_kv_heads=2, head_dim=64),
    "wide": replace(BASE, num_heads=4, num_kv_heads=1, head_dim=256),
    "softcap": replace(BASE, softcap=2.0),
    "softcap, wide": replace(BASE, head_dim=256, softcap=0.5),
    "many heads to one": replace(BASE, num_heads=40, num_kv_heads=1, head_dim=16),
}


UNITS = [Simd(lanes=16, registers=32), Simd(lanes=8, registers=16), Simd(lanes=4, registers=32)]
# Compiling takes longest, so each of the others gets one vector unit.
WITH_EVERY_UNIT = ("odd",)


def _schedules(device: Device, name: str) -> list[tuple[Any, Any]]:
    """Makers of prefill's and decode's body; on the CPU for one vector unit or for each."""
    if device.gpu:
        return [(gpu.prefill_body, gpu.decode_body)]
    units = UNITS if name in WITH_EVERY_UNIT else [UNITS[list(SHAPES).index(name) % len(UNITS)]]
    return [(partial(cpu.prefill_body, simd=s), partial(cpu.decode_body, simd=s)) for s in units]


def reference(
    shape: AttentionShape,
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    q_positions: NDArray[Any],
    k_positions: NDArray[Any],
    scale: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Outputs [n, heads, d] and base 2 lse [n, heads] in float64; scale < 0 says windowed."""
    k, v = (np.repeat(a.astype("f8"), shape.group, axis=1) for a in (k, v))
    scores = np.einsum("nhd,mhd->hnm", q.astype("f8"), k) * abs(scale)
    if shape.softcap is not None:
        scores = shape.softcap * np.tanh(scores / shape.softcap)
    distance = q_positions[:, None] - k_positions[None, :]
    seen = distance >= 0
    if scale < 0 and shape.window is not None:
        seen &= distance < shape.window
    weights = np.where(seen, np.exp(scores), 0)
    total = weights.sum(-1)
    out = np.einsum("hnm,mhd->nhd", weights / np.where(total > 0, total, 1)[..., None], v)
    lse = np.where(total > 0, np.log2(np.where(total > 0, total, 1)), NONE)
    return out, lse.T


def _random(rng: np.random.Generator, *size: int) -> NDArray[np.float32]:
    return rng.normal(size=size).astype("f4")


def _i4(values: Any) -> NDArray[np.int32]:
    return np.asarray(values, "i4")


def _pages(
    rng: np.random.Generator, shape: AttentionShape, lengths: list[int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], list[Any], list[Any]]:
    """A shuffled page pool holding random keys and values of the given lengths."""
    counts = [-(-length // shape.page_size) for length in lengths]
    order = rng.permutation(sum(counts) + 3)
    pool = np.full((len(order), 2, shape.num_kv_heads, shape.page_size, shape.head_dim), np.nan, "f4")
    indptr, values, last, keys, vals = [0], [], [], [], []
    for length, count in zip(lengths, counts, strict=True):
        mine = order[indptr[-1] : indptr[-1] + count]
        k, v = (_random(rng, length, shape.num_kv_heads, shape.head_dim) for _ in range(2))
        for j in range(length):
            pool[mine[j // shape.page_size], 0, :, j % shape.page_size] = k[j]
            pool[mine[j // shape.page_size], 1, :, j % shape.page_size] = v[j]
        values += mine.tolist()
        indptr.append(indptr[-1] + count)
        last.append((length - 1) % shape.page_size + 1 if length else 0)
        keys.append(k)
        vals.append(v)
    return pool, _i4(indptr), _i4(values or [0]), _i4(last), keys, vals


def _check(found: NDArray[Any], lse: NDArray[Any], want: NDArray[Any], want_lse: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, want, atol=2e-5)
    np.testing.assert_allclose(lse, want_lse, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_ragged_prefill_sees_its_own_chunk(device: Device, name: str, windowed: bool) -> None:
    """Chunks shorter than, equal to and longer than the window, of several sequences in one call."""
    shape, rng = SHAPES[name], np.random.default_rng(1)
    lengths, starts = [5, 16, 1, 41], [0, 3, 100, 7]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype("i4")
    n = int(indptr[-1])
    q = _random(rng, n, shape.num_heads, shape.head_dim)
    k, v = (_random(rng, n, shape.num_kv_heads, shape.head_dim) for _ in range(2))
    positions = np.concatenate([np.arange(s, s + m) for s, m in zip(starts, lengths, strict=True)])
    scale = (-1 if windowed else 1) * shape.head_dim**-0.5
    for prefill, _ in _schedules(device, name):
        out, lse = np.full_like(q, np.nan), np.full(q.shape[:2], np.nan, "f4")
        device.call(
            ragged_prefill(shape, prefill(shape)),
            q, indptr, k, v, indptr.copy(), _i4(positions), _i4(starts), out, lse, 1, 0, 1.0, 1.0, scale,
        )  # fmt: skip
        for i in range(len(lengths)):
            rows = slice(indptr[i], indptr[i + 1])
            want = reference(shape, q[rows], k[rows], v[rows], positions[rows], positions[rows], scale)
            _check(out[rows], lse[rows], *want)


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_paged_prefill_sees_the_cache(device: Device, name: str, windowed: bool) -> None:
    """Keys within the window, beyond it, and none at all (an empty cache, every key too far)."""
    shape, rng = SHAPES[name], np.random.default_rng(2)
    cached, lengths, starts = [20, 0, 33, 17], [7, 4, 30, 2], [0, 0, 5, 0]
    pool, indptr, values, last, keys, vals = _pages(rng, shape, cached)
    # The last sequence continues far beyond its keys: with a window it sees none of them.
    first = [*(s + c for s, c in zip(starts[:3], cached[:3], strict=True)), 200]
    q_indptr = np.concatenate([[0], np.cumsum(lengths)]).astype("i4")
    positions = np.concatenate([np.arange(s, s + m) for s, m in zip(first, lengths, strict=True)])
    q = _random(rng, int(q_indptr[-1]), shape.num_heads, shape.head_dim)
    scale = (-1 if windowed else 1) * shape.head_dim**-0.5
    for prefill, _ in _schedules(device, name):
        out, lse = np.full_like(q, np.nan), np.full(q.shape[:2], np.nan, "f4")
        device.call(
            paged_prefill(shape, prefill(shape)),
            q, q_indptr, pool, indptr, values, last, _i4(starts), _i4(positions), out, lse,
            0, 0, 1.0, 1.0, scale,
        )  # fmt: skip
        for i in range(len(cached)):
            rows = slice(q_indptr[i], q_indptr[i + 1])
            at = np.arange(starts[i], starts[i] + cached[i])
            want = reference(shape, q[rows], keys[i], vals[i], positions[rows], at, scale)
            _check(out[rows], lse[rows], *want)


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_decode_sees_the_cache(device: Device, name: str, windowed: bool) -> None:
    shape, rng = SHAPES[name], np.random.default_rng(3)
    cached = [1, 16, 17, 150]
    pool, indptr, values, last, keys, vals = _pages(rng, shape, cached)
    q = _random(rng, len(cached), shape.num_heads, shape.head_dim)
    positions = _i4(cached) - 1
    scale = (-1 if windowed else 1) * shape.head_dim**-0.5
    for _, decode in _schedules(device, name):
        out, lse = np.full_like(q, np.nan), np.full(q.shape[:2], np.nan, "f4")
        device.call(
            paged_decode(shape, decode(shape)),
            q, pool, indptr, values, last, _i4([0] * 4), positions, out, lse, 0, 1.0, 1.0, scale,
        )  # fmt: skip
        for i, length in enumerate(cached):
            rows = slice(i, i + 1)
            want = reference(shape, q[rows], keys[i], vals[i], positions[rows], np.arange(length), scale)
            _check(out[rows], lse[rows], *want)


@pytest.mark.parametrize("name", SHAPES)
def test_merge_is_attention_over_both_sets(device: Device, name: str) -> None:
    """Many rows: a race on lse would show in some of them."""
    shape, rng = SHAPES[name], np.random.default_rng(4)
    n, m, scale = 70, 24, shape.head_dim**-0.5
    q = _random(rng, n, shape.num_heads, shape.head_dim)
    k, v = (_random(rng, m, shape.num_kv_heads, shape.head_dim) for _ in range(2))
    positions, at = np.full(n, m), np.arange(m)
    a, lse_a = reference(shape, q, k[:9], v[:9], positions, at[:9], scale)
    b, lse_b = reference(shape, q, k[9:], v[9:], positions, at[9:], scale)
    lse_b[5:9], b[5:9] = NONE, 0  # rows that see nothing in the second set
    a4, la4, b4, lb4 = (np.ascontiguousarray(x, dtype="f4") for x in (a, lse_a, b, lse_b))
    device.call(merge(shape, (gpu if device.gpu else cpu).merge_body(shape)), a4, la4, b4, lb4)
    want, want_lse = reference(shape, q, k, v, positions, at, scale)
    want[5:9], want_lse[5:9] = a[5:9], lse_a[5:9]
    _check(a4, la4, want, want_lse)


def test_kernels_stay_within_what_every_webgpu_device_offers(webgpu: WebGPU) -> None:
    for shape in SHAPES.values():
        prefill, decode = gpu.prefill_body(shape), gpu.decode_body(shape)
        for func in (
            ragged_prefill(shape, prefill),
            paged_prefill(shape, prefill),
            paged_decode(shape, decode),
            merge(shape, gpu.merge_body(shape)),
        ):
            for kernel in webgpu.kernels(func.with_attr("global_symbol", "main")).values():
                assert np.prod(kernel.workgroup) <= 256
                assert kernel.shared_bytes <= 32 << 10
                assert len(kernel.writes) <= 10
                assert not any(tag == "blockIdx.z" for tag in kernel.launch_tags)
