"""Casts and group quantization, bit for bit those of mlc_llm, on any CPU.

The arithmetic (mlc_llm's GroupQuantize; M the model dtype, largest 7 for 4 bit and 3 for 3 bit):
    w     = source cast to M
    scale = max|w| over a group of 32 (3 bit: 40) along in_features / largest
    q     = clip(round_half_even(w / scale + largest), 0, 2 * largest)
    word  = sum of q[i] << bits * i over 8 (3 bit: 10) elements, the first lowest; 0 past the end of a row
and then float32 values are stored as bfloat16.

Every operation is rounded to M where M is float16 or float32. For bfloat16 TVM's compiler computes in
float32 and rounds only what it stores: scale, but not quotient and sum. Where it stores scales
transposed (layout KN), q is computed with those that are not rounded yet.

Why numpy in float32, in blocks: numpy's own float16 costs 2 to 4 ns an element and operation, 25 in
all (4.3 s for a 262144 x 640 matrix). A kernel compiled at run time needs a second to load the
compiler, as long as the whole conversion of a 270M model takes on two free cores, and its float16 is
hardware on one CPU and a library call on the next. A float32 operation on two float16 values,
rounded to float16, is exactly the float16 operation (24 >= 2 * 11 + 2 bits: Figueroa, "When is double
rounding innocuous?", 1995), and that rounding is five integer operations. Each numpy call is one
rounded operation, so no compiler can contract two into a fused multiply-add. Values lie [32, groups],
so that what is done per group runs along memory: 5 ns of one core an element for everything.
"""

import math
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from engine.catalog import Layout, ModelDtype, Quantization

BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
FLOAT16: np.dtype[Any] = np.dtype("<f2")
FLOAT32: np.dtype[Any] = np.dtype("<f4")
OVERFLOW: dict[ModelDtype, float] = {
    "float16": 65520.0,
    "bfloat16": 255.5 * 2.0**120,
    "float32": math.inf,
}
"""Magnitudes from here on round to infinity: halfway from the largest number to the next power of two."""


def largest_magnitude(source: NDArray[Any]) -> float:
    """max|source|, exactly; inf or nan where there is one. `source` is bfloat16, float16 or float32."""
    if source.size == 0:
        return 0.0
    # Without the sign bit, the codes of IEEE floats order as their magnitudes do, nan above inf.
    bits = np.dtype(f"<u{source.dtype.itemsize}")
    codes = source.view(bits) & bits.type(2 ** (8 * bits.itemsize - 1) - 1)
    return float(codes.max(keepdims=True).view(source.dtype).astype(FLOAT32).item())


def add_one(source: NDArray[Any]) -> NDArray[Any]:
    """`source` + 1, rounded to the source's dtype."""
    return np.asarray(source + source.dtype.type(1))


def dtype_on_disk(dtype: str) -> np.dtype[Any]:
    """How the elements of a stored tensor of `dtype` lie on disk."""
    return {"uint32": np.dtype("<u4"), "float16": FLOAT16}.get(dtype, BFLOAT16)


def stored(source: NDArray[Any], model_dtype: ModelDtype) -> NDArray[Any]:
    """`source` cast to the model dtype, as it lies on disk: float32 as bfloat16.

    Magnitudes beyond the range become infinite, but for the largest float32, whose writer keeps them.
    """
    if model_dtype == "bfloat16":
        return _nearest_bfloat16(source)
    return _cast(source, FLOAT16 if model_dtype == "float16" else BFLOAT16)


def quantize(
    source: NDArray[Any], quantization: Quantization, layout: Layout = "NK"
) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """`source` [N, K] as words uint32 [N, words] and scales [N, groups] as on disk, for KN transposed.

    groups = ceil(K / group_size), words = groups * group_size / elements_per_word. Scales are of the
    model dtype, bfloat16 where that is float32. Finite sources only; those beyond the range of
    float16 give infinite scales there, as in mlc_llm.
    """
    dtype = quantization.model_dtype
    half = dtype == "float16"
    size, largest = quantization.group_size, np.float32(quantization.max_int)
    rows, columns = source.shape
    if padding := -columns % size:
        source = np.pad(source, ((0, 0), (0, padding)))
    values = _grouped(source, size, dtype)
    peak = np.abs(values).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if half:
            scale = peak.astype(FLOAT16) / FLOAT16.type(largest)
            divisor = scale.astype(FLOAT32)
        else:
            divisor = peak / largest
            scale = _cast(divisor, BFLOAT16)
            if dtype == "bfloat16" and layout == "NK":
                divisor = scale.astype(FLOAT32)
        values /= divisor
        scratch = np.empty(values.shape, np.uint32) if half else None
        if scratch is not None:
            _round_to_float16(values, scratch)
        values += largest
        if scratch is not None:
            _round_to_float16(values, scratch)
    np.rint(values, out=values)
    if not (divisor.min(initial=1) > 0 and divisor.max(initial=1) < np.inf):
        # A scale of 0 (a group of zeros, or of the smallest subnormals) or inf (overflow) leaves 0 / 0
        # and inf / inf. The compiled max(nan, 0) is 0.
        values[np.isnan(values)] = 0
    np.clip(values, 0, 2 * largest, out=values)
    q = values.astype(np.uint8)
    if padding:
        per_row = q.reshape(size, rows, -1)
        per_row[size - padding :, :, -1] = 0
    words = _packed(q, quantization).reshape(rows, -1)
    scale = scale.reshape(rows, -1)
    return (words, scale) if layout == "NK" else (words.T, scale.T)


def _packed(q: NDArray[np.uint8], quantization: Quantization) -> NDArray[np.uint32]:
    """Integers [group_size, groups] as words [groups, words of a group]."""
    assert quantization.bits is not None
    pairs = q[0::2] | q[1::2] << np.uint8(quantization.bits)
    if quantization.bits == 4:  # two fill a byte
        return np.ascontiguousarray(pairs.T).view("<u4")
    each = quantization.elements_per_word // 2
    words = pairs[0::each].astype("<u4")
    for i in range(1, each):
        words |= pairs[i::each].astype("<u4") << np.uint32(2 * quantization.bits * i)
    return np.ascontiguousarray(words.T)


def _grouped(source: NDArray[Any], size: int, dtype: ModelDtype) -> NDArray[np.float32]:
    """The values of `source` in the model dtype, as float32 [size, groups]."""
    if source.dtype == FLOAT32:
        if dtype == "float32":
            return np.array(source.reshape(-1, size).T, order="C")  # a copy also where none is needed
        source = stored(source, dtype)
    codes = source.view("<u2").reshape(-1, size).T
    return np.asarray(np.take(_values_table(source.dtype, dtype), codes, mode="wrap"))


def _round_to_float16(values: NDArray[np.float32], scratch: NDArray[np.uint32]) -> None:
    """Round to 11 bits, half to even, in place: float16 for magnitudes in [2**-14, 65520), inf and nan.

    Below 2**-14 float16 is coarser, which does not matter here: such a quotient is followed by + 7.
    """
    bits = values.view(np.uint32)
    np.right_shift(bits, 13, out=scratch)
    scratch &= 1
    scratch += 0x0FFF
    bits += scratch
    bits &= 0xFFFFE000


def _cast(source: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if source.dtype == dtype:
        return source
    if source.dtype.itemsize == 2:
        codes = np.take(_codes_table(source.dtype, dtype), source.view("<u2"), mode="wrap")
        return np.asarray(codes.view(dtype))
    if dtype == BFLOAT16:
        return _float32_to_bfloat16(source)
    with np.errstate(over="ignore"):
        return np.asarray(source.astype(dtype))


def _float32_to_bfloat16(source: NDArray[np.float32]) -> NDArray[Any]:
    """Round half to even; beyond the largest bfloat16 towards zero, so that no finite value is lost.

    So does TVM's writer (`_convert_f32_to_bf16` in tvm/contrib/tvmjs.py).
    """
    bits = source.view("<u4")
    rounding = (bits >> 16 & 1) + np.uint32(0x7FFF)
    rounding[(bits & 0x7FFFFFFF) >= 0x7F7F0000] = 0
    return np.asarray(((bits + rounding) >> 16).astype("<u2").view(BFLOAT16))


def _nearest_bfloat16(source: NDArray[Any]) -> NDArray[Any]:
    """Round half to even; what rounds beyond the largest bfloat16 becomes infinite."""
    if source.dtype != FLOAT32:  # no float16 is beyond
        return _cast(source, BFLOAT16)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(source.astype(BFLOAT16))


@cache
def _codes_table(source: np.dtype[Any], dtype: np.dtype[Any]) -> NDArray[np.uint16]:
    """The code in `dtype` of every code of a 16 bit `source`: one gather is quicker than any cast."""
    every = np.arange(2**16, dtype="<u2").view(source).astype(FLOAT32)
    return np.asarray(_cast(every, dtype).view("<u2"))


@cache
def _values_table(source: np.dtype[Any], dtype: ModelDtype) -> NDArray[np.float32]:
    """The float32 value of every code of a 16 bit `source`, first rounded to the model dtype."""
    every = np.arange(2**16, dtype="<u2").view(source).astype(FLOAT32)
    return every if dtype == "float32" else stored(every, dtype).astype(FLOAT32)
