"""Rotary tables and rotation against float64, on the CPU and in a real WebGPU."""

from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import te
from tvm.s_tir import dlight
from tvm.target import Target
from webgpu_kernels.device import TARGET

from engine.embedded.evaluate import rope_frequencies
from engine.embedded.kernels import rope
from engine.embedded.spec import LayerSpec, RopeScaling

LLAMA3 = RopeScaling(rope_type="llama3", factor=8, original_max_position_embeddings=8192)
LAYERS = {
    "theta 1e4": LayerSpec(rope_theta=1e4),
    "theta 1e6": LayerSpec(rope_theta=1e6),
    "llama3": LayerSpec(rope_theta=5e5, rope_scaling=LLAMA3),
    "linear": LayerSpec(rope_theta=1e4, rope_scaling=RopeScaling(rope_type="linear", factor=4)),
}
POSITIONS = np.array([0, 1, 2, 511, 4095, 32767, 131071], "i4")
HEAD_DIM = 256


def _table(request: pytest.FixtureRequest, device: str, layer: LayerSpec) -> NDArray[Any]:
    positions = te.placeholder((len(POSITIONS),), "int32", "positions")
    out = rope.rope_table(positions, head_dim=HEAD_DIM, layer=layer)
    func = te.create_prim_func([positions, out]).with_attr("global_symbol", "main")
    found = np.zeros((len(POSITIONS), 2, HEAD_DIM // 2), "f4")
    if device == "cpu":
        built = tvm.compile(func, target=Target({"kind": "llvm"}))
        result = tvm.runtime.tensor(found)
        built["main"](tvm.runtime.tensor(POSITIONS), result)
        return np.array(result.numpy())
    with TARGET:
        mod = dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())(tvm.IRModule({"main": func}))
    request.getfixturevalue("webgpu").call(mod["main"], POSITIONS, found)
    return found


@pytest.mark.parametrize("device", ["cpu", "webgpu"])
@pytest.mark.parametrize("name", LAYERS)
def test_table(request: pytest.FixtureRequest, device: str, name: str) -> None:
    """The angle is right to the precision of its float32 product, at every position in use.

    WGSL's cos and sin may be off by 2^-11 within [-pi, pi] and by anything beyond.
    """
    found = _table(request, device, LAYERS[name])
    angles = POSITIONS[:, None].astype("f8") * rope_frequencies(HEAD_DIM, LAYERS[name])
    want = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rounding = 6 * 2.0**-24 * np.maximum(angles, 1)[:, None, :]
    floor = 1e-6 if device == "cpu" else 2.0**-11
    assert (np.abs(found - want) <= rounding + floor).all()


@pytest.mark.parametrize("device", ["cpu", "webgpu"])
@pytest.mark.parametrize(("fused", "normed"), [(True, False), (False, True)])
def test_rotation(request: pytest.FixtureRequest, device: str, fused: bool, normed: bool) -> None:
    """q and k are normed and rotated, v passes; the heads come out joined."""
    n, hq, hkv, d, eps = 3, 4, 2, 80, 1e-6
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(n, h, d)).astype("f4") for h in (hq, hkv, hkv))
    angle = rng.uniform(-3, 3, size=(n, d // 2)).astype("f4")
    table = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    weights = [rng.normal(size=d).astype("f4") for _ in range(2)] if normed else []
    kernel = rope.rotate_qkv(
        num_heads=hq, num_kv_heads=hkv, head_dim=d, out_dtype="float32", fused=fused,
        norm=(eps, "float32") if normed else None, gpu=device == "webgpu",
    )  # fmt: skip
    flat = [x.reshape(n, -1) for x in (q, k, v)]
    inputs = [np.concatenate(flat, axis=1)] if fused else flat
    out = np.zeros((n, hq + 2 * hkv, d), "f4")
    arguments = [np.ascontiguousarray(a) for a in (*inputs, table, *weights)]
    kernel = kernel.with_attr("global_symbol", "main")
    if device == "cpu":
        result = tvm.runtime.tensor(out)
        built = tvm.compile(kernel, target=Target({"kind": "llvm"}))
        built["main"](*[tvm.runtime.tensor(a) for a in arguments], result)
        out = np.array(result.numpy())
    else:
        request.getfixturevalue("webgpu").call(kernel, *arguments, out)

    def rotated(x: NDArray[Any], weight: NDArray[Any] | None) -> NDArray[Any]:
        if weight is not None:
            x = x / np.sqrt((x.astype("f8") ** 2).mean(-1, keepdims=True) + eps) * weight
        a, b = x[..., : d // 2], x[..., d // 2 :]
        cos, sin = table[:, None, 0], table[:, None, 1]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    norms = weights or [None, None]
    want = np.concatenate([rotated(q, norms[0]), rotated(k, norms[1]), v], axis=1)
    np.testing.assert_allclose(out, want, atol=1e-5)
