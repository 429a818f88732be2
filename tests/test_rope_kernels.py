"""Rotary tables and rotation against float64, on the CPU and in a real WebGPU."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from webgpu_kernels.either import Device

from engine.embedded.evaluate import rope_frequencies
from engine.embedded.kernels import rope
from engine.embedded.spec import DecoderSpec, LayerSpec, RopeScaling

HEAD_DIM = 256
CONTEXT = 131072
LLAMA3 = RopeScaling(rope_type="llama3", factor=8, original_max_position_embeddings=8192)
LAYERS = {
    "theta 1e4": LayerSpec(rope_theta=1e4),
    "theta 1e6": LayerSpec(rope_theta=1e6),
    "llama3": LayerSpec(rope_theta=5e5, rope_scaling=LLAMA3),
    "linear": LayerSpec(rope_theta=1e4, rope_scaling=RopeScaling(rope_type="linear", factor=4)),
    "yarn": LayerSpec(
        rope_theta=1e6,
        rope_scaling=RopeScaling(
            rope_type="yarn", short_factor=tuple(min(1 + 0.1 * j, 4) for j in range(HEAD_DIM // 2))
        ),
    ),
}
LONGROPE = LayerSpec(
    rope_theta=1e4,
    rope_scaling=RopeScaling(
        rope_type="longrope",
        original_max_position_embeddings=4096,
        short_factor=tuple(1 + 0.01 * j for j in range(HEAD_DIM // 2)),
        long_factor=tuple(1 + 0.5 * j for j in range(HEAD_DIM // 2)),
        attention_factor=1.19,
    ),
)
POSITIONS = np.array([0, 1, 2, 511, 4095, 32767, 131071], "i4")


def _check_table(device: Device, frequencies: NDArray[Any], want: NDArray[Any], factor: float) -> None:
    """The angle is right to the precision of its float32 product, at every position in use.

    WGSL's own cos and sin may be off by 2^-11 within [-pi, pi] and by anything beyond.
    """
    found = device.compute(partial(rope.rope_table, factor=factor), POSITIONS, frequencies)
    angles = POSITIONS[:, None].astype("f8") * want
    expected = factor * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rounding = 6 * 2.0**-24 * np.maximum(angles, 1)[:, None, :]
    assert (np.abs(found - expected) <= rounding + 1e-6).all()


@pytest.mark.parametrize("name", LAYERS)
def test_table(device: Device, name: str) -> None:
    frequencies = rope.inverse_frequencies(HEAD_DIM, LAYERS[name], CONTEXT)
    assert frequencies.dtype == np.float32
    _check_table(device, frequencies, rope_frequencies(HEAD_DIM, LAYERS[name]), 1.0)


@pytest.mark.parametrize(("context", "which"), [(4096, "short_factor"), (4097, "long_factor")])
def test_longrope_chooses_by_the_context(device: Device, context: int, which: str) -> None:
    """Within the original context the short factors, beyond it the long ones throughout."""
    scaling = LONGROPE.rope_scaling
    assert scaling is not None
    plain = rope_frequencies(HEAD_DIM, replace(LONGROPE, rope_scaling=None))
    want = plain / np.array(getattr(scaling, which))
    frequencies = rope.inverse_frequencies(HEAD_DIM, LONGROPE, context)
    np.testing.assert_allclose(frequencies, want, rtol=1e-7)
    _check_table(device, frequencies, want, scaling.attention_factor)


BASE = DecoderSpec(
    model_type="made",
    vocab_size=16,
    hidden_size=64,
    intermediate_size=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=80,
    layers=(LayerSpec(),),
    activation="silu",
    norm_eps=1e-6,
    attention_scale=1.0,
    rotary_dim=80,
)
SPECS = {
    "llama": BASE,
    "gemma 3": replace(BASE, qkv_layout="apart", qk_norm="head"),
    "qwen 2": replace(BASE, qkv_bias=True),
    "qwen 3": replace(BASE, qk_norm="head"),
    "olmo 2": replace(BASE, qkv_layout="apart", qk_norm="full"),
    "full norm of joined": replace(BASE, qk_norm="full", num_attention_heads=3, num_key_value_heads=1),
    "gpt-neox": replace(BASE, qkv_bias=True, num_key_value_heads=4, rotary_dim=20),
    "partial": replace(BASE, rotary_dim=32),
    "gpt 2": replace(BASE, qkv_bias=True, num_key_value_heads=4, rotary_dim=0),
    "all at once": replace(BASE, qkv_layout="apart", qkv_bias=True, qk_norm="head", rotary_dim=2),
    "a head wider than a workgroup": replace(BASE, head_dim=320, rotary_dim=320, qk_norm="head"),
}


@pytest.mark.parametrize("name", SPECS)
def test_rotation(device: Device, name: str) -> None:
    """q and k get their bias, norm and rotation, v its bias alone; the heads come out joined."""
    spec, n, rng = SPECS[name], 3, np.random.default_rng(0)
    hq, hkv, d, r = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim, spec.rotary_dim

    def normal(*size: int) -> NDArray[np.float32]:
        return rng.normal(size=size).astype("f4")

    parts = [normal(n, h, d) for h in (hq, hkv, hkv)]
    biases = [normal(h, d) for h in (hq, hkv, hkv)]
    angle = rng.uniform(-3, 3, size=(n, r // 2)).astype("f4")
    table = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    whole = spec.qk_norm == "full"
    weights = [normal(h, d) if whole else normal(d) for h in (hq, hkv)] if spec.qk_norm else []

    def stored(of: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """`of` q, k and v [..., heads, d] as `qkv_layout` has them, flat."""
        flat = [x.reshape(*x.shape[:-2], -1) for x in of]
        return flat if spec.qkv_layout == "apart" else [np.concatenate(flat, axis=-1)]

    inputs = stored(parts)
    inputs += stored(biases) if spec.qkv_bias else []
    inputs += [table] if r else []
    inputs += [w.reshape(-1) for w in weights]
    out = np.full((n, hq + 2 * hkv, d), np.nan, "f4")
    kernel = rope.rotate_qkv(spec, weight_dtype="float32", out_dtype="float32", gpu=device.gpu)
    device.call(kernel, *map(np.ascontiguousarray, inputs), out)

    def rotated(x: NDArray[Any], weight: NDArray[Any] | None) -> NDArray[Any]:
        if weight is not None:
            axes = (-2, -1) if whole else (-1,)
            x = x / np.sqrt((x.astype("f8") ** 2).mean(axes, keepdims=True) + spec.norm_eps) * weight
        a, b, rest = x[..., : r // 2], x[..., r // 2 : r], x[..., r:]
        cos, sin = table[:, None, 0], table[:, None, 1]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

    q, k, v = (x + b if spec.qkv_bias else x for x, b in zip(parts, biases, strict=True))
    norms = weights or [None, None]
    want = np.concatenate([rotated(q, norms[0]), rotated(k, norms[1]), v], axis=1)
    np.testing.assert_allclose(out, want, atol=2e-5)
