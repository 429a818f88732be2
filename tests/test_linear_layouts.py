"""Products with weights in every layout that an export has, on WebGPU and on the CPU, against numpy.

Shapes are odd: in_features that no group divides, rows that no tile divides. What a browser without
shader-f16 cannot run, float16 weights, differs in the dtype of a buffer alone.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import awq_models
import ml_dtypes
import numpy as np
import pytest
import tvm
from quantization_reference import plain
from tvm.target import Target
from webgpu_kernels.device import WebGPU

from engine.catalog import QUANTIZATIONS, Layout, ModelDtype, Quantization
from engine.embedded.kernels import linear
from engine.embedded.kernels.simd import Simd

Array = np.ndarray[Any, Any]
Stored = tuple[Quantization, Layout | None, tuple[Array, ...], Array]
"""How it is stored, its buffers, and the weight [rows, columns] in float32."""

ROWS, COLUMNS = 70, 173
FORMS = ("q0", "q4 NK", "q4 KN", "q3 NK", "q3 KN", "awq")
DTYPES: dict[ModelDtype, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def stored(form: str, dtype: ModelDtype, awq_rows: int = 72) -> Stored:
    """A random matrix in that form, with floats of `dtype`."""
    rng, real = np.random.default_rng(3), DTYPES[dtype]
    if form == "awq":
        parts, _ = awq_models.linear(rng, awq_rows, 256)
        how = replace(QUANTIZATIONS["q4f16_autoawq"], model_dtype=dtype)
        scales = parts["scales"].astype(real)
        spread = np.repeat(scales.astype(np.float32), awq_models.GROUP, axis=0)
        weight = (centred_awq(parts) * spread).T.astype(np.float32)
        return how, "KN", (parts["qweight"].view(np.uint32), parts["qzeros"].view(np.uint32), scales), weight
    source = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    if form == "q0":
        weight = source.astype(real)
        return replace(QUANTIZATIONS["q0f32"], model_dtype=dtype), None, (weight,), weight.astype(np.float32)
    bits, layout = form.split()
    how = replace(QUANTIZATIONS[f"{bits}f16_1"], model_dtype=dtype)
    assert layout in ("NK", "KN")
    place: Layout = "NK" if layout == "NK" else "KN"
    words, scales = plain(source, how, place)
    scales = scales.astype(real)
    upright = (words, scales) if place == "NK" else (words.T, scales.T)
    return how, place, (words, scales), dequantized(*upright, how)


def dequantized(words: Array, scales: Array, how: Quantization) -> Array:
    """The weight [rows, COLUMNS] of words [rows, ...] and scales [rows, groups], one integer at a time."""
    bits, size = {4: (4, 32), 3: (3, 40)}[how.bits or 0]
    out = np.empty((words.shape[0], COLUMNS), np.float32)
    for column in range(COLUMNS):
        word = words[:, column // (32 // bits)]
        integer = (word >> np.uint32(bits * (column % (32 // bits)))) & np.uint32(2**bits - 1)
        centred = integer.astype(np.int64) - (2 ** (bits - 1) - 1)
        out[:, column] = centred * scales[:, column // size].astype(np.float32)
    return out


def centred_awq(parts: awq_models.Tensors) -> Array:
    """integer - zero of an AWQ layer, [in_features, out_features]."""

    def unpacked(words: Array) -> Array:
        out = np.empty((words.shape[0], words.shape[1] * 8), np.int64)
        for nibble, place in enumerate(awq_models.ORDER):
            out[:, place::8] = (words.view(np.uint32) >> np.uint32(4 * nibble)) & np.uint32(15)
        return out

    zeros = np.repeat(unpacked(parts["qzeros"]), awq_models.GROUP, axis=0)
    return unpacked(parts["qweight"]) - zeros


def contiguous(buffers: tuple[Array, ...]) -> list[Array]:
    return [np.ascontiguousarray(buffer) for buffer in buffers]


@pytest.mark.browser
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("kernel", "tokens"), [(linear.gemv_gpu, 1), (linear.gemm_gpu, 37)], ids=["gemv", "gemm"]
)
def test_on_webgpu(webgpu: WebGPU, kernel: Callable[..., Any], tokens: int, form: str) -> None:
    how, layout, buffers, weight = stored(form, "float32")
    x = np.random.default_rng(4).standard_normal((tokens, weight.shape[1])).astype(np.float32)
    y = np.zeros((tokens, weight.shape[0]), np.float32)
    webgpu.call(kernel(*weight.shape, how, layout), x, *contiguous(buffers), y)
    np.testing.assert_allclose(y, x @ weight.T, rtol=0, atol=1e-5 * np.abs(x @ weight.T).max())


def on_the_cpu(stored_matrix: Stored, simd: Simd | None = None) -> None:
    """One token, the most that are multiplied row by row, tiles of them and a rest."""
    how, layout, buffers, weight = stored_matrix
    target = Target({"kind": "llvm"})
    kernel = linear.matmul_cpu(*weight.shape, how, layout, simd or Simd.of(target))
    built = tvm.compile(kernel.with_attr("global_symbol", "main"), target=target)
    weights = [tvm.runtime.tensor(buffer) for buffer in contiguous(buffers)]
    for tokens in (1, 4, 35):
        x = np.random.default_rng(4).standard_normal((tokens, weight.shape[1])).astype(np.float32)
        y = tvm.runtime.tensor(np.full((tokens, weight.shape[0]), np.nan, np.float32))
        built["main"](tvm.runtime.tensor(x), *weights, y)
        np.testing.assert_allclose(y.numpy(), x @ weight.T, rtol=0, atol=1e-5 * np.abs(x @ weight.T).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_on_the_cpu(form: str, dtype: ModelDtype) -> None:
    on_the_cpu(stored(form, dtype))


@pytest.mark.parametrize(("lanes", "registers"), [(4, 16), (4, 32), (8, 16), (16, 32)])
@pytest.mark.parametrize("rows", [8, 32, 128, 200])
def test_awq_by_vectors(rows: int, lanes: int, registers: int) -> None:
    """Fewer rows than a tile has, or than a vector of words holds; exactly so many, and a rest."""
    on_the_cpu(stored("awq", "float16", rows), Simd(lanes=lanes, registers=registers))
