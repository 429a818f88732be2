"""Casts and quantization against plain statements of the arithmetic, and against TVM's own compilation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from quantization_reference import BF16, plain, to_bfloat16

from engine.catalog import QUANTIZATIONS, Layout, Quantization
from engine.embedded.quantize import add_one, largest_magnitude, quantize, stored

SOURCES = (BF16, np.dtype(np.float16), np.dtype(np.float32))
# Others differ from these in layout, or in what they leave alone.
QUANTIZED = [QUANTIZATIONS[name] for name in ("q4f16_1", "q4f32_1", "q4bf16_1", "q3f16_1")]
LAYOUTS: tuple[Layout, ...] = ("NK", "KN")


def agree(source: np.ndarray[Any, Any], quantization: Quantization) -> None:
    before = source.tobytes()
    for layout in LAYOUTS:
        words, scales = quantize(source, quantization, layout)
        assert source.tobytes() == before
        expected_words, expected_scales = plain(source, quantization, layout)
        np.testing.assert_array_equal(words, expected_words)
        assert scales.dtype == expected_scales.dtype
        np.testing.assert_array_equal(scales.view(np.uint16), expected_scales.view(np.uint16))


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Any codes at all (non-finite ones cleared), or values of similar size, of any magnitude."""
    dtype = draw(st.sampled_from(SOURCES))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 85)))
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
    agree(source, quantization)


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
    agree(values.astype(np.float32).astype(dtype), quantization)


@pytest.mark.parametrize("quantization", QUANTIZED, ids=lambda q: q.name)
def test_values_beyond_float16_come_out_as_the_formula_has_them(quantization: Any) -> None:
    agree(np.array([[1e5, -1e5, 65519.0, 65520.0, 1.0]], np.float32), quantization)


def test_a_zero_group_packs_to_zero_and_padding_too() -> None:
    words, scales = quantize(np.zeros((1, 40), np.float32), QUANTIZATIONS["q4f32_1"])
    assert not words.any()
    assert not scales.astype(np.float32).any()
    words, _ = quantize(np.ones((1, 33), np.float32), QUANTIZATIONS["q4f32_1"])
    assert words.tolist() == [[0xEEEEEEEE] * 4 + [0xE, 0, 0, 0]]
    words, _ = quantize(np.ones((1, 41), np.float32), QUANTIZATIONS["q3f16_1"])
    assert words.tolist() == [[0o6666666666] * 4 + [6, 0, 0, 0]]


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


def compiled(quantization: Quantization, layout: Layout, rows: int, columns: int) -> Any:
    """The formula as TVM compiles it, in one function as mlc_llm has it: weights -> (words, scales)."""
    import tvm
    from tvm import relax, te, topi
    from tvm import tirx as tir

    assert quantization.bits is not None
    dtype, bits, size = quantization.model_dtype, quantization.bits, quantization.group_size
    per_word = 32 // bits
    groups = -(-columns // size)
    largest = tir.const(2 ** (bits - 1) - 1, dtype)

    def formula(w: Any) -> tuple[Any, Any]:
        r, k = te.reduce_axis((0, size), "r"), te.reduce_axis((0, per_word), "k")

        def magnitude(i: Any, j: Any) -> Any:
            at = j * size + r
            return te.max(tir.if_then_else(at < columns, te.abs(w[i, at]), tir.min_value(dtype)), axis=r)

        peak = te.compute((rows, groups), magnitude)
        scale = te.compute((rows, groups), lambda i, j: peak[i, j] / largest)

        def integer(i: Any, j: Any) -> Any:
            x = tir.round(w[i, j] / scale[i, j // size] + largest)
            return tir.min(tir.max(x, tir.const(0, dtype)), largest * 2).astype("uint32")

        q = te.compute((rows, columns), integer)

        def word(i: Any, j: Any) -> Any:
            at, shift = j * per_word + k, k.astype("uint32") * tir.const(bits, "uint32")
            return te.sum(tir.if_then_else(at < columns, q[i, at] << shift, tir.const(0, "uint32")), axis=k)

        words = te.compute((rows, groups * size // per_word), word)
        return (words, scale) if layout == "NK" else (topi.transpose(words), topi.transpose(scale))

    bb = relax.BlockBuilder()
    weights = relax.Var("w", relax.TensorType((rows, columns), dtype))
    with bb.function("main", [weights]):
        bb.emit_func_output(bb.emit_te(formula, weights))
    mod = relax.transform.LegalizeOps()(bb.finalize())
    return relax.VirtualMachine(relax.build(mod, target="llvm"), tvm.cpu())["main"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("quantization", QUANTIZED, ids=lambda q: q.name)
@pytest.mark.parametrize("columns", [80, 37])
def test_quantization_equals_the_formula_compiled_by_tvm(
    columns: int, quantization: Quantization, layout: Layout
) -> None:
    import tvm

    rng, rows = np.random.default_rng(1), 4096
    source = rng.standard_normal((rows, columns)) * np.exp2(rng.integers(-30, 17, size=(rows, 1)))
    source[::7] = 0
    source[1::13, :20] = 0
    source[2::17] = rng.integers(-20, 21, size=source[2::17].shape) * 2.0**-24
    with np.errstate(over="ignore"):
        weights = source.astype(np.float32).astype(quantization.model_dtype)
    words, scales = compiled(quantization, layout, rows, columns)(tvm.runtime.tensor(weights))
    found_words, found_scales = quantize(source.astype(np.float32), quantization, layout)
    np.testing.assert_array_equal(found_words, words.numpy())
    expected = scales.numpy()
    if quantization.model_dtype == "float32":
        expected = to_bfloat16(expected)
    np.testing.assert_array_equal(found_scales.view("u2"), expected.view("u2"))
