"""Rows of weights that are stored transposed: neighbours in memory are rows, so a lane is a row.

A sum over columns then stays within its lane. Where the rows of a task reach past the last one they are
moved back, and a few results are computed, and stored, twice.
"""

from typing import Any

from tvm.script import tirx as T

from engine.catalog import Quantization
from engine.embedded.kernels.linear.rows import Rows, accumulate, integers, zeros
from engine.embedded.kernels.linear.weights import Reader
from engine.embedded.kernels.simd import Simd, load, prefetch, widened


class TransposedRows(Rows):
    """Group-quantized weights [words, rows] with scales [groups, rows]; see GroupedRows."""

    def __init__(self, rows: int, columns: int, simd: Simd, quantization: Quantization) -> None:
        super().__init__(rows, columns, simd)
        assert quantization.bits is not None
        self.bits, self.max_int = quantization.bits, quantization.max_int
        self.per_word = quantization.elements_per_word
        self.group_words = quantization.group_size // self.per_word
        self.groups = -(-columns // quantization.group_size)
        self.positions = self.groups * quantization.group_size
        # A group's sums are held in registers, and a few of them are needed for the integers.
        self.vectors = min(simd.registers // 4, rows // simd.lanes)
        self.dot_rows = self.vectors * simd.lanes

    def dot(self, weight: Reader, packed: Any, i: Any, first: Any, y: Any) -> None:
        """See Rows."""
        (words, scales), lanes = weight.buffers, self.simd.lanes
        start = T.min(first, self.rows - self.dot_rows)
        sums = zeros(self.vectors, lanes)
        with T.serial(self.groups) as group, T.sblock("group"):
            part = zeros(self.vectors, lanes)
            centre = T.sblock_alloc_buffer((1,), "float32")
            T.buffer_store(centre, T.float32(0), [0])
            with T.serial(self.group_words) as w:
                word = group * self.group_words + w
                place = i * self.positions + word * self.per_word
                for v in range(self.vectors):
                    T.evaluate(prefetch(words, word + self.group_words, start + v * lanes))
                for j in range(self.per_word):
                    x = packed[place + j]
                    T.buffer_store(centre, centre[0] + x, [0])
                    for v in range(self.vectors):
                        found = load(words, word, start + v * lanes, lanes=lanes)
                        accumulate(
                            part, v, lanes, integers(found, self.bits, j, lanes) * T.Broadcast(x, lanes)
                        )
            # sum((q - c) * x) = sum(q * x) - c * sum(x)
            for v in range(self.vectors):
                scale = load(scales, group, start + v * lanes, lanes=lanes)
                middle = T.Broadcast(centre[0] * T.float32(self.max_int), lanes)
                value = (load(part, v, 0, lanes=lanes) - middle) * widened(scale, self.simd)
                accumulate(sums, v, lanes, value)
        for v in range(self.vectors):
            T.buffer_store(y, load(sums, v, 0, lanes=lanes), [i, T.ramp(start + v * lanes, 1, lanes)])


class AwqRows(Rows):
    """Weights of an AWQ checkpoint: a word holds 8 rows of a column, out of order; see `awq_reader`."""

    PER_WORD = 8

    def __init__(self, rows: int, columns: int, simd: Simd, quantization: Quantization) -> None:
        super().__init__(rows, columns, simd)
        self.group = quantization.group_size
        # A vector of words is as many vectors of rows as a word has integers.
        self.dot_rows = self.PER_WORD * simd.lanes if rows >= self.PER_WORD * simd.lanes else 0

    def dot(self, weight: Reader, packed: Any, i: Any, first: Any, y: Any) -> None:
        """See Rows."""
        (words, zero_words, scales), lanes, count = weight.buffers, self.simd.lanes, self.PER_WORD
        start = T.min(first, self.rows - self.dot_rows) // count
        sums = zeros(count, lanes)
        with T.serial(self.columns // self.group) as group, T.sblock("group"):
            part = zeros(count, lanes)
            total = T.sblock_alloc_buffer((1,), "float32")
            T.buffer_store(total, T.float32(0), [0])
            with T.serial(self.group) as c:
                column = group * self.group + c
                x = packed[i * self.positions + column]
                T.buffer_store(total, total[0] + x, [0])
                T.evaluate(prefetch(words, column + count, start))
                found = load(words, column, start, lanes=lanes)
                for j in range(count):
                    accumulate(part, j, lanes, integers(found, 4, j, lanes) * T.Broadcast(x, lanes))
            # sum((q - z) * x) = sum(q * x) - z * sum(x)
            spread = T.sblock_alloc_buffer((lanes,), "float32")
            for j in range(count):
                with T.serial(lanes) as lane:
                    scale = widened(scales[group, self._row(start + lane, j)], self.simd)
                    T.buffer_store(spread, scale, [lane])
                zero = integers(load(zero_words, group, start, lanes=lanes), 4, j, lanes)
                value = load(part, j, 0, lanes=lanes) - zero * T.Broadcast(total[0], lanes)
                accumulate(sums, j, lanes, value * load(spread, 0, lanes=lanes))
        for j in range(count):
            with T.serial(lanes) as lane:
                T.buffer_store(y, sums[j, lane], [i, self._row(start + lane, j)])

    def _row(self, word: Any, j: int) -> Any:
        """The row of the `j`-th integer of a word: 0 2 4 6 1 3 5 7, the first lowest."""
        return word * self.PER_WORD + j % 4 * 2 + j // 4
