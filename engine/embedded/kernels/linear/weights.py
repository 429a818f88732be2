"""How stored weights are read: a kernel's signature around a body that sees only a Reader."""

from collections.abc import Callable
from math import ceil
from typing import Any

import tvm
from tvm.script import tirx as T

from engine.catalog import Quantization

Reader = Callable[[Any, Any], Any]
"""(row, column) -> float32 expression of that weight."""


def plain_reader(weight: Any) -> Reader:
    """Weights stored as floats."""
    return lambda row, column: T.Cast("float32", weight[row, column])


def group_reader(words: Any, scales: Any, quantization: Quantization) -> Reader:
    """Group-quantized weights: (q - max_int) * scale, `q` packed lowest first into uint32 words."""
    assert quantization.bits is not None
    per_word, group = quantization.elements_per_word, quantization.group_size
    bits, max_int = quantization.bits, quantization.max_int

    def read(row: Any, column: Any) -> Any:
        shift = T.Cast("uint32", column % per_word) * T.uint32(bits)
        q = (words[row, column // per_word] >> shift) & T.uint32(2**bits - 1)
        centred = T.Cast("float32", T.Cast("int32", q) - max_int)
        return centred * T.Cast("float32", scales[row, column // group])

    return read


def with_weights(
    rows: int, columns: int, quantization: Quantization, quantized: bool, body: Any
) -> tvm.tirx.PrimFunc:
    """A kernel f(x, *weights, y) around `body`, which sees weights only through a Reader."""
    model_dtype = quantization.model_dtype
    if not quantized:

        @T.prim_func(private=True, s_tir=True)
        def plain(vx: T.handle, vw: T.handle, vy: T.handle):
            T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
            n = T.int64()
            x = T.match_buffer(vx, (n, columns), "float32")
            w = T.match_buffer(vw, (rows, columns), model_dtype)
            y = T.match_buffer(vy, (n, rows), "float32")
            body(x, y, n, plain_reader(w))

        return plain

    groups = ceil(columns / quantization.group_size)
    words = groups * (quantization.group_size // quantization.elements_per_word)

    @T.prim_func(private=True, s_tir=True)
    def grouped(vx: T.handle, vw: T.handle, vs: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        x = T.match_buffer(vx, (n, columns), "float32")
        w = T.match_buffer(vw, (rows, words), "uint32")
        s = T.match_buffer(vs, (rows, groups), model_dtype)
        y = T.match_buffer(vy, (n, rows), "float32")
        body(x, y, n, group_reader(w, s, quantization))

    return grouped
