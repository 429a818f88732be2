"""Products of the CPU with stored weights, for every layout and every width of vectors, against numpy."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import te
from tvm.target import Target

from engine.catalog import QUANTIZATIONS, Layout, Quantization
from engine.embedded.kernels.linear import matmul_cpu
from engine.embedded.kernels.simd import Simd, widened

UNITS = [
    Simd(lanes=16, registers=32),
    Simd(lanes=8, registers=16),
    Simd(lanes=4, registers=32),
    Simd(lanes=4, registers=16, half=False),
]
# Rows and columns that no tile, vector or group divides; one group; several blocks and a rest.
SHAPES = [(37, 50), (5, 3), (26, 672)]
# Row by row, up to and past the most tokens for that; a vector of tokens, and one more.
TOKENS = (1, 2, 4, 5, 16, 17)


def _dtype(name: str) -> Any:
    return ml_dtypes.bfloat16 if name == "bfloat16" else name


def _stored(
    rng: np.random.Generator, rows: int, columns: int, quantization: Quantization, layout: Layout | None
) -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
    """Random stored tensors, and the matrix [rows, columns] that they say."""
    dtype = _dtype(quantization.model_dtype)
    if layout is None:
        plain = rng.normal(size=(rows, columns)).astype(dtype)
        return [plain], plain.astype("f8")
    assert quantization.bits is not None
    groups, per_word = -(-columns // quantization.group_size), quantization.elements_per_word
    size = (rows, groups * quantization.group_size // per_word)
    words = rng.integers(0, 2**32, size=size, dtype="u4")
    scales = rng.uniform(0.1, 1, size=(rows, groups)).astype(dtype)
    shifts = np.arange(per_word, dtype="u4") * np.uint32(quantization.bits)
    integers = (words[..., None] >> shifts) & np.uint32(2**quantization.bits - 1)
    full = integers.reshape(rows, -1).astype("f8") - quantization.max_int
    full *= np.repeat(scales.astype("f8"), quantization.group_size, axis=1)
    tensors = [words, scales] if layout == "NK" else [words.T.copy(), scales.T.copy()]
    return tensors, full[:, :columns]


@pytest.mark.parametrize("simd", UNITS, ids=str)
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("q0f32", None),
        ("q0f16", None),
        ("q0bf16", None),
        ("q4f32_1", "NK"),
        ("q4f16_1", "NK"),
        ("q4bf16_1", "NK"),
        ("q3f16_1", "NK"),
        ("q4f16_0", "KN"),
        ("q3f16_0", "KN"),
        ("q4bf16_0", "KN"),
    ],
)
def test_products(name: str, layout: Layout | None, simd: Simd) -> None:
    rng = np.random.default_rng(0)
    for rows, columns in SHAPES:
        stored, full = _stored(rng, rows, columns, QUANTIZATIONS[name], layout)
        kernel = matmul_cpu(rows, columns, QUANTIZATIONS[name], layout, simd)
        built = tvm.compile(kernel.with_attr("global_symbol", "main"), target=Target({"kind": "llvm"}))
        tensors = [tvm.runtime.tensor(tensor) for tensor in stored]
        for n in TOKENS:
            x = rng.normal(size=(n, columns)).astype("f4")
            found = tvm.runtime.tensor(np.full((n, rows), np.nan, "f4"))
            built["main"](tvm.runtime.tensor(x), *tensors, found)
            error = np.abs(found.numpy() - x.astype("f8") @ full.T)
            # Rounding grows with the products' sizes, not with that of a sum in which they cancel.
            assert (error <= 1e-6 * (np.abs(x) @ np.abs(full).T)).all()


def test_every_float16_is_widened_without_an_instruction_for_it() -> None:
    """Zeros, subnormals, the largest, infinities and NaN, with their signs."""
    every = np.arange(2**16, dtype="u2").view("f2")
    stored = te.placeholder(every.shape, "float16")
    out = te.compute(every.shape, lambda i: widened(stored[i].asobject(), UNITS[-1]))
    built = tvm.compile(te.create_prim_func([stored, out]).with_attr("global_symbol", "main"), target="llvm")
    found = tvm.runtime.tensor(np.empty(every.shape, "f4"))
    built["main"](tvm.runtime.tensor(every), found)
    np.testing.assert_array_equal(found.numpy(), every.astype("f4"))
    np.testing.assert_array_equal(np.signbit(found.numpy()), np.signbit(every))


def test_the_vector_unit_is_that_of_the_target() -> None:
    def unit(**target: str) -> Simd:
        return Simd.of(Target({"kind": "llvm", **target}))

    x86, arm = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
    assert unit(mtriple=x86, mcpu="znver4") == Simd(lanes=16, registers=32)
    assert unit(mtriple=x86, mcpu="haswell") == Simd(lanes=8, registers=16)
    assert unit(mtriple=x86, mcpu="sandybridge") == Simd(lanes=8, registers=16, half=False)
    assert unit(mtriple=x86, mcpu="x86-64") == Simd(lanes=4, registers=16, half=False)
    assert unit(mtriple=arm, mcpu="apple-m1") == Simd(lanes=4, registers=32)
