"""Casts and quantization against plain statements of the arithmetic, and against TVM's own compilation."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.catalog import QUANTIZATIONS
from engine.embedded.quantize import add_one, largest_magnitude, quantize, stored

BF16 = np.dtype(ml_dtypes.bfloat16)
SOURCES = (BF16, np.dtype(np.float16), np.dtype(np.float32))
QUANTIZED = [q for q in QUANTIZATIONS.values() if q.bits is not None]


def to_bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 to bfloat16 as TVM's writer does, one number at a time in Python integers."""
    out = []
    for value in values.ravel():
        bits = int(np.float32(value).view(np.uint32))
        if abs(float(value)) < float(np.float32(ml_dtypes.finfo(BF16).max)):
            bits += 0x7FFF + (bits >> 16 & 1)
        out.append(bits >> 16)
    return np.array(out, np.uint16).view(BF16).reshape(values.shape)


def plain(
    source: np.ndarray[Any, Any], model_dtype: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The formula, in numpy arrays of the model dtype itself, group by group."""
    M = np.dtype(model_dtype).type
    rows, columns = source.shape
    groups = -(-columns // 32)
    words = np.zeros((rows, 4 * groups), np.uint32)
    scales = np.zeros((rows, groups), M)
    with np.errstate(all="ignore"):
        weights = source.astype(np.float32).astype(M)
        for row in range(rows):
            for group in range(groups):
                w = weights[row, 32 * group : 32 * group + 32]
                scale = np.abs(w).max() / M(7)
                x = np.rint(w / scale + M(7))
                assert x.dtype == M
                q = np.where(x > 0, x, M(0))  # nan is not above 0
                q = np.where(q < 14, q, M(14)).astype(np.uint32)
                for i, value in enumerate(q):
                    words[row, 4 * group + i // 8] |= value << np.uint32(4 * (i % 8))
                scales[row, group] = scale
    return words, scales if model_dtype == "float16" else to_bfloat16(scales)


def agree(source: np.ndarray[Any, Any], name: str) -> None:
    before = source.tobytes()
    words, scales = quantize(source, QUANTIZATIONS[name])
    assert source.tobytes() == before
    expected_words, expected_scales = plain(source, QUANTIZATIONS[name].model_dtype)
    np.testing.assert_array_equal(words, expected_words)
    assert scales.dtype == expected_scales.dtype
    np.testing.assert_array_equal(scales.view(np.uint16), expected_scales.view(np.uint16))


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Any codes at all (non-finite ones cleared), or values of similar size, of any magnitude."""
    dtype = draw(st.sampled_from(SOURCES))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 70)))
    if draw(st.booleans()):
        codes = draw(hnp.arrays(f"u{dtype.itemsize}", shape))
        values = codes.view(dtype)
        return np.where(np.isfinite(values.astype(np.float32)), values, dtype.type(0))
    steps = draw(hnp.arrays(np.int16, shape, elements=st.integers(-20, 20) | st.integers(-2000, 2000)))
    exponent = draw(st.integers(-26, 8) | st.integers(-126, 110))
    values = np.ldexp(steps.astype(np.float32), exponent)
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    return np.where(np.isfinite(cast.astype(np.float32)), cast, dtype.type(1))


@pytest.mark.parametrize("quantization", QUANTIZED, ids=lambda q: q.name)
@settings(deadline=None)
@given(source=matrices())
def test_quantization_equals_the_formula_in_the_model_dtype(source: Any, quantization: Any) -> None:
    agree(source, quantization.name)


@pytest.mark.parametrize("quantization", QUANTIZED, ids=lambda q: q.name)
@pytest.mark.parametrize("dtype", SOURCES, ids=str)
@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 64)),
        np.full((1, 33), -3.0),
        np.arange(-16, 16)[None] * 2.0**-24,  # float16 subnormals
        np.arange(4)[None] * 2.0**-24,  # a float16 scale that rounds to 0
        np.array([[60000.0, -60000.0, 1.0, 0.0]]),
        np.array([[0.0] * 32 + [1e-30] * 32 + [1.0] * 7]),
    ],
    ids=["zeros", "constant", "subnormal", "scale 0", "large", "mixed groups"],
)
def test_edge_cases(values: Any, dtype: Any, quantization: Any) -> None:
    agree(values.astype(np.float32).astype(dtype), quantization.name)


@pytest.mark.parametrize("quantization", QUANTIZED, ids=lambda q: q.name)
def test_values_beyond_float16_come_out_as_the_formula_has_them(quantization: Any) -> None:
    agree(np.array([[1e5, -1e5, 65519.0, 65520.0, 1.0]], np.float32), quantization.name)


def test_a_zero_group_packs_to_zero_and_padding_too() -> None:
    words, scales = quantize(np.zeros((1, 40), np.float32), QUANTIZATIONS["q4f32_1"])
    assert not words.any()
    assert not scales.astype(np.float32).any()
    words, _ = quantize(np.ones((1, 33), np.float32), QUANTIZATIONS["q4f32_1"])
    assert words.tolist() == [[0xEEEEEEEE] * 4 + [0xE, 0, 0, 0]]


@pytest.mark.parametrize("quantization", QUANTIZED, ids=lambda q: q.name)
def test_rows_are_independent(quantization: Any) -> None:
    source = np.random.default_rng(3).standard_normal((9, 72)).astype(BF16)
    whole = quantize(source, quantization)
    for at, row in enumerate(source):
        for part, all_rows in zip(quantize(row[None], quantization), whole, strict=True):
            np.testing.assert_array_equal(part[0].view(np.uint8), all_rows[at].view(np.uint8))


def every_code(dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    return np.arange(2**16, dtype=np.uint16).view(dtype)


@pytest.mark.parametrize("dtype", SOURCES[:2], ids=str)
def test_every_code_of_a_16_bit_source_casts_as_numpy_casts_it(dtype: Any) -> None:
    codes = every_code(dtype)
    finite = np.isfinite(codes.astype(np.float32))
    with np.errstate(over="ignore"):
        half = codes.astype(np.float32).astype(np.float16)
    np.testing.assert_array_equal(stored(codes, "float16")[finite].view("u2"), half[finite].view("u2"))
    wide = to_bfloat16(codes[finite].astype(np.float32))
    np.testing.assert_array_equal(stored(codes, "float32")[finite].view("u2"), wide.view("u2"))


@settings(deadline=None)
@given(hnp.arrays(np.float32, 64, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_float32_is_stored_rounded_to_nearest_even(values: Any) -> None:
    np.testing.assert_array_equal(stored(values, "float32").view("u2"), to_bfloat16(values).view("u2"))
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    np.testing.assert_array_equal(stored(values, "float16").view("u2"), half.view("u2"))


def test_no_finite_float32_becomes_an_infinite_bfloat16() -> None:
    largest = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max], np.float32)
    assert np.isfinite(stored(largest, "float32").astype(np.float32)).all()


@pytest.mark.parametrize("dtype", SOURCES, ids=str)
def test_largest_magnitude(dtype: Any) -> None:
    values = np.array([0.5, -3.0, 2.0, -0.0]).astype(dtype)
    assert largest_magnitude(values) == 3.0
    assert largest_magnitude(values[:0]) == 0.0
    assert largest_magnitude(np.array([1, -np.inf]).astype(dtype)) == np.inf
    assert np.isnan(largest_magnitude(np.array([-np.inf, np.nan, 1]).astype(dtype)))


@pytest.mark.parametrize("dtype", SOURCES, ids=str)
def test_one_is_added_in_the_dtype_of_the_source(dtype: Any) -> None:
    w = np.array([0.00390625, 0.0117, -1.0, 3.3]).astype(dtype)
    total = add_one(w)
    assert total.dtype == dtype
    np.testing.assert_array_equal(total, (w.astype(np.float64) + 1).astype(np.float32).astype(dtype))


def compiled(model_dtype: str, rows: int, columns: int) -> Any:
    """The formula as TVM compiles it for this CPU: (weights, words, scales) -> None."""
    import tvm
    from tvm import te
    from tvm import tirx as tir

    groups = -(-columns // 32)
    w = te.placeholder((rows, columns), model_dtype, "w")
    r, k = te.reduce_axis((0, 32), "r"), te.reduce_axis((0, 8), "k")

    def magnitude(i: Any, j: Any) -> Any:
        at = j * 32 + r
        return te.max(tir.if_then_else(at < columns, te.abs(w[i, at]), tir.min_value(model_dtype)), axis=r)

    peak = te.compute((rows, groups), magnitude)
    scale = te.compute((rows, groups), lambda i, j: peak[i, j] / tir.const(7, model_dtype))

    def integer(i: Any, j: Any) -> Any:
        x = tir.round(w[i, j] / scale[i, j // 32] + tir.const(7, model_dtype))
        low = tir.max(x, tir.const(0, model_dtype))
        return tir.min(low, tir.const(14, model_dtype)).astype("uint32")

    q = te.compute((rows, columns), integer)

    def word(i: Any, j: Any) -> Any:
        at, shift = j * 8 + k, k.astype("uint32") * tir.const(4, "uint32")
        return te.sum(tir.if_then_else(at < columns, q[i, at] << shift, tir.const(0, "uint32")), axis=k)

    words = te.compute((rows, groups * 4), word)
    return tvm.compile(tvm.IRModule({"main": te.create_prim_func([w, words, scale])}), target="llvm")["main"]


@pytest.mark.parametrize("quantization", QUANTIZED, ids=lambda q: q.name)
@pytest.mark.parametrize("columns", [64, 37])
def test_quantization_equals_the_formula_compiled_by_tvm(columns: int, quantization: Any) -> None:
    import tvm

    rng, rows = np.random.default_rng(1), 4096
    source = rng.standard_normal((rows, columns)) * np.exp2(rng.integers(-30, 17, size=(rows, 1)))
    source[::7] = 0
    source[1::13, :20] = 0
    source[2::17] = rng.integers(-20, 21, size=source[2::17].shape) * 2.0**-24
    with np.errstate(over="ignore"):
        weights = source.astype(np.float32).astype(quantization.model_dtype)
    groups = -(-columns // 32)
    words = tvm.runtime.tensor(np.zeros((rows, 4 * groups), np.uint32))
    scales = tvm.runtime.tensor(np.zeros((rows, groups), quantization.model_dtype))
    compiled(quantization.model_dtype, rows, columns)(tvm.runtime.tensor(weights), words, scales)
    found_words, found_scales = quantize(source.astype(np.float32), quantization)
    np.testing.assert_array_equal(found_words, words.numpy())
    expected = scales.numpy()
    if quantization.model_dtype == "float32":
        expected = to_bfloat16(expected)
    np.testing.assert_array_equal(found_scales.view("u2"), expected.view("u2"))
