"""Norms, activations and sums against float64, on the CPU and in a real WebGPU."""

import math
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import te, tirx
from webgpu_kernels.either import Device, cpu

from engine.embedded.kernels import arithmetic, elementwise, exponential
from engine.embedded.kernels.norm import norm


def _normal(seed: int, *size: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=size).astype("f4")


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("size", [40, 700])
def test_norm(device: Device, size: int, kind: Literal["rms", "layer"], bias: bool, residual: bool) -> None:
    """Rows far from zero: a layer norm takes the mean off before it squares."""
    eps, x = 1e-5, _normal(0, 3, size) + 100
    w, b, r = _normal(1, size), _normal(2, size), _normal(3, 3, size)
    centred = x.astype("f8") - (x.astype("f8").mean(-1, keepdims=True) if kind == "layer" else 0)
    want = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w
    want += (b if bias else 0) + (r if residual else 0)
    kernel = norm(size, eps, "float32", kind=kind, bias=bias, residual=residual, gpu=device.gpu)
    out = np.full_like(x, np.nan)
    device.call(kernel, x, w, *([b] if bias else []), *([r] if residual else []), out)
    np.testing.assert_allclose(out, want, atol=1e-4 if kind == "layer" else 2e-5)


def _elementwise(function: Any) -> Any:
    return lambda x: te.compute(x.shape, lambda *i: function(x[i]))


# Far beyond where the results are flat: some shader compilers make NaN of a large argument.
WIDE = np.concatenate([np.linspace(-6, 6, 4001), [-1e30, -1e4, -90, -1e-20, 0, 1e-20, 90, 1e4, 1e30]])


def test_tanh_and_erf(device: Device) -> None:
    x = WIDE.astype("f4")
    for ours, exact in ((arithmetic.tanh, math.tanh), (arithmetic.erf, math.erf)):
        found = device.compute(_elementwise(ours), x)
        np.testing.assert_allclose(found, np.vectorize(exact)(x.astype("f8")), atol=5e-7)


@pytest.mark.parametrize(("function", "exact"), [(te.exp, np.exp), (tirx.exp2, np.exp2)])
def test_exponentials_of_the_cpu(function: Any, exact: Any) -> None:
    """To a unit in the last place, over subnormal results to 0, over the largest to infinity, and NaN."""
    exponential.register()
    ends = [np.inf, -np.inf, np.nan, -1e30, 1e30, -0.0, 88.72, 88.73, 127.999, 128, -126, -126.001]
    x = np.concatenate([np.linspace(-160, 140, 100001), np.linspace(-1, 1, 10001), ends]).astype("f4")
    with np.errstate(over="ignore", under="ignore"):
        want = exact(x.astype("f8")).astype("f4")
    found = cpu().compute(_elementwise(function), x)
    np.testing.assert_allclose(found, want, rtol=1.2e-7, atol=2e-45)


ACTIVATIONS: dict[Any, Any] = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(device: Device, name: Any, biased: bool) -> None:
    """From -80 to 80: cubes of the argument are large, exponentials overflow."""
    size = 96
    product = np.linspace(-80, 80, 2 * 2 * size, dtype="f4").reshape(2, -1)
    bias = [_normal(1, 2 * size)] if biased else []
    x = product + sum(bias)
    act = np.vectorize(ACTIVATIONS[name])
    found = device.compute(partial(elementwise.activated, activation=name), product, *bias)
    np.testing.assert_allclose(found, act(x.astype("f8")), rtol=1e-6, atol=3e-5)
    found = device.compute(partial(elementwise.gated, activation=name), product, *bias)
    want = act(x[:, :size].astype("f8")) * x[:, size:]
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=3e-3)


def test_sums_and_softcap(device: Device) -> None:
    x, y, z = (_normal(i, 5, 70) for i in range(3))
    b, half = _normal(4, 70), _normal(5, 70).astype("f2")
    np.testing.assert_allclose(device.compute(elementwise.add, x, y, z, b), x + y + z + b, atol=1e-6)
    if not device.gpu:  # no software GPU has float16
        np.testing.assert_allclose(device.compute(elementwise.add, x, half), x + half.astype("f4"), atol=1e-6)
    capped = device.compute(partial(elementwise.softcap, cap=30.0), 100 * x, b)
    np.testing.assert_allclose(capped, 30 * np.tanh((100 * x.astype("f8") + b) / 30), atol=3e-5)
