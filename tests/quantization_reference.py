"""The arithmetic of casts and group quantization, stated plainly; it shares no code with the engine."""

from typing import Any

import ml_dtypes
import numpy as np

from engine.catalog import Layout, Quantization

BF16 = np.dtype(ml_dtypes.bfloat16)


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
    source: np.ndarray[Any, Any], quantization: Quantization, layout: Layout = "NK"
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The formula, group by group, in numpy arrays of the model dtype itself.

    For bfloat16 in float32, with the scale rounded before it divides, unless it is stored transposed.
    """
    bits, size = {"q3": (3, 40), "q4": (4, 32)}[quantization.name[:2]]
    largest, per_word = 2 ** (bits - 1) - 1, 32 // bits
    each = size // per_word
    dtype = np.dtype(quantization.model_dtype)
    M = np.float32 if dtype == BF16 else dtype.type
    rows, columns = source.shape
    groups = -(-columns // size)
    words = np.zeros((rows, each * groups), np.uint32)
    scales = np.zeros((rows, groups), M)
    with np.errstate(all="ignore"):
        weights = source.astype(np.float32).astype(dtype).astype(M)
        for row in range(rows):
            for group in range(groups):
                w = weights[row, size * group : size * group + size]
                scale = np.abs(w).max() / M(largest)
                if dtype == BF16 and layout == "NK":
                    scale = M(BF16.type(scale))
                x = np.rint(w / scale + M(largest))
                assert x.dtype == M
                q = np.where(x > 0, x, M(0))  # nan is not above 0
                q = np.where(q < 2 * largest, q, M(2 * largest)).astype(np.uint32)
                for i, value in enumerate(q):
                    words[row, each * group + i // per_word] |= value << np.uint32(bits * (i % per_word))
                scales[row, group] = scale
    stored_scales = scales if dtype == np.float16 else to_bfloat16(scales)
    return (words, stored_scales) if layout == "NK" else (words.T, stored_scales.T)
