"""How stored weights are read: a kernel's signature around a body that sees only a Reader."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import tvm
from tvm.script import tirx as T

from engine.catalog import Layout, Quantization
from engine.embedded.kernels import script


@dataclass(frozen=True)
class Reader:
    """Stored weights: `reader(row, column)` is the float32 expression of one, `buffers` hold them."""

    buffers: tuple[Any, ...]
    element: Callable[[Any, Any], Any]

    def __call__(self, row: Any, column: Any) -> Any:
        """The weight at `row` (of out_features) and `column`, a TIR expression."""
        return self.element(row, column)


def plain_reader(weight: Any) -> Reader:
    """Weights stored as floats."""
    return Reader((weight,), lambda row, column: T.Cast("float32", weight[row, column]))


def group_reader(words: Any, scales: Any, quantization: Quantization, layout: Layout = "NK") -> Reader:
    """Group-quantized weights: (q - max_int) * scale, `q` packed lowest first into uint32 words.

    Buffers are [N, words] and [N, groups], for KN their transposes.
    """
    assert quantization.bits is not None
    per_word, group = quantization.elements_per_word, quantization.group_size
    bits, max_int = quantization.bits, quantization.max_int

    def at(buffer: Any, row: Any, place: Any) -> Any:
        return buffer[row, place] if layout == "NK" else buffer[place, row]

    def read(row: Any, column: Any) -> Any:
        shift = T.Cast("uint32", column % per_word) * T.uint32(bits)
        q = (at(words, row, column // per_word) >> shift) & T.uint32(2**bits - 1)
        centred = T.Cast("float32", T.Cast("int32", q) - max_int)
        return centred * T.Cast("float32", at(scales, row, column // group))

    return Reader((words, scales), read)


def awq_reader(words: Any, zeros: Any, scales: Any, quantization: Quantization) -> Reader:
    """Weights of an AWQ checkpoint: (q - zero) * scale of buffers [K, N/8], [K/128, N/8] and [K/128, N].

    A word holds 8 neighbours along out_features, the even ones in its low half, then the odd ones.
    """
    group = quantization.group_size

    def integer(word: Any, row: Any) -> Any:
        place = row % 2 * 4 + row % 8 // 2
        return T.Cast("int32", (word >> T.Cast("uint32", place * 4)) & T.uint32(15))

    def read(row: Any, column: Any) -> Any:
        q = integer(words[column, row // 8], row)
        zero = integer(zeros[column // group, row // 8], row)
        return T.Cast("float32", q - zero) * T.Cast("float32", scales[column // group, row])

    return Reader((words, zeros, scales), read)


def with_weights(
    rows: int, columns: int, quantization: Quantization, layout: Layout | None, body: Any
) -> tvm.tirx.PrimFunc:
    """A kernel f(x, *weights, y) around `body`, which sees weights only through a Reader.

    `layout` is None where they are stored as floats.
    """
    model_dtype = quantization.model_dtype
    if layout is None:

        @script.prim_func(private=True, s_tir=True)
        def plain(vx: T.handle, vw: T.handle, vy: T.handle):
            T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
            n = T.int64()
            x = T.match_buffer(vx, (n, columns), "float32")
            w = T.match_buffer(vw, (rows, columns), model_dtype)
            y = T.match_buffer(vy, (n, rows), "float32")
            body(x, y, n, plain_reader(w))

        return plain

    groups = ceil(columns / quantization.group_size)
    if quantization.from_awq:

        @script.prim_func(private=True, s_tir=True)
        def awq(vx: T.handle, vw: T.handle, vz: T.handle, vs: T.handle, vy: T.handle):
            T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
            n = T.int64()
            x = T.match_buffer(vx, (n, columns), "float32")
            w = T.match_buffer(vw, (columns, rows // 8), "uint32")
            z = T.match_buffer(vz, (groups, rows // 8), "uint32")
            s = T.match_buffer(vs, (groups, rows), model_dtype)
            y = T.match_buffer(vy, (n, rows), "float32")
            body(x, y, n, awq_reader(w, z, s, quantization))

        return awq

    words = groups * (quantization.group_size // quantization.elements_per_word)
    word_shape = (rows, words) if layout == "NK" else (words, rows)
    scale_shape = (rows, groups) if layout == "NK" else (groups, rows)

    @script.prim_func(private=True, s_tir=True)
    def grouped(vx: T.handle, vw: T.handle, vs: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        x = T.match_buffer(vx, (n, columns), "float32")
        w = T.match_buffer(vw, word_shape, "uint32")
        s = T.match_buffer(vs, scale_shape, model_dtype)
        y = T.match_buffer(vy, (n, rows), "float32")
        body(x, y, n, group_reader(w, s, quantization, layout))

    return grouped
