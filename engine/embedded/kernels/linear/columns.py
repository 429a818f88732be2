"""Rows of weights that are stored transposed: neighbours in memory are rows, so a lane is a row.

A sum over columns then stays within its lane. Where the rows of a task reach past the last one they are
moved back, and a few results are computed, and stored, twice.
"""

from math import ceil
from typing import Any

from tvm.script import tirx as T

from engine.catalog import Quantization
from engine.embedded.kernels.linear.rows import Rows, accumulate, integers, zeros
from engine.embedded.kernels.linear.weights import Reader
from engine.embedded.kernels.simd import Simd, load, prefetch, repeated, spans, spread, store, widened


class TransposedRows(Rows):
    """Group-quantized weights [words, rows] with scales [groups, rows]; see GroupedRows."""

    by_position = True

    def __init__(self, rows: int, columns: int, simd: Simd, quantization: Quantization) -> None:
        super().__init__(rows, columns, simd)
        assert quantization.bits is not None
        self.bits, self.max_int = quantization.bits, quantization.max_int
        self.per_word = quantization.elements_per_word
        self.group_words = quantization.group_size // self.per_word
        self.groups = -(-columns // quantization.group_size)
        self.block = quantization.group_size
        self.positions = self.groups * self.block
        # So many sums hide the latency of a multiply-add; more would leave narrow matrices too few tasks.
        self.vectors = min(4, rows // simd.lanes)
        self.dot_rows = self.vectors * simd.lanes

    def widen(self, weight: Reader, first: Any, start: Any, size: int, panel: Any) -> None:
        """See Rows."""
        words, scales = weight.buffers
        with T.serial(size // self.block) as g:
            group = start // self.block + g
            for begin, vectors, width in spans(self.tile_rows, self.simd.lanes):
                for r in range(begin, begin + vectors * width, width):
                    centre = spread(T.float32(self.max_int), width)
                    scale = widened(load(scales, group, first + r, lanes=width), self.simd)
                    with T.serial(self.group_words) as w:
                        word = group * self.group_words + w
                        T.evaluate(prefetch(words, word + size // self.per_word, first + r))
                        found = load(words, word, first + r, lanes=width)
                        for j in range(self.per_word):
                            p = (g * self.group_words + w) * self.per_word + j
                            value = (integers(found, self.bits, j, width) - centre) * scale
                            store(panel, value, self.place(r, p, size), lanes=width)

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

    PER_WORD = unit = 8
    by_position = True

    def __init__(self, rows: int, columns: int, simd: Simd, quantization: Quantization) -> None:
        super().__init__(rows, columns, simd)
        self.block = quantization.group_size
        # A vector of words is as many vectors of rows as a word has integers.
        self.dot_rows = self.PER_WORD * simd.lanes if rows >= self.PER_WORD * simd.lanes else 0

    def widen(self, weight: Reader, first: Any, start: Any, size: int, panel: Any) -> None:
        """See Rows."""
        words, zero_words, scales = weight.buffers
        with T.serial(size // self.block) as g:
            group = start // self.block + g
            for begin, vectors, width in spans(self.tile_rows, self.simd.lanes):
                for r in range(begin, begin + vectors * width, width):
                    zero = self._unpacked(zero_words, group, first, r, width)
                    scale = widened(load(scales, group, first + r, lanes=width), self.simd)
                    with T.serial(self.block) as c:
                        p = g * self.block + c
                        ahead = (first + r) // self.PER_WORD
                        T.evaluate(prefetch(words, start + p + size, ahead))
                        value = self._unpacked(words, start + p, first, r, width) - zero
                        store(panel, value * scale, self.place(r, p, size), lanes=width)

    def _unpacked(self, words: Any, column: Any, first: Any, r: int, width: int) -> Any:
        """The integers of `width` rows from `first` + `r` on, in order, as float32."""
        count = ceil(width / self.PER_WORD)
        found = load(words, column, (first + r) // self.PER_WORD, lanes=count)
        found = repeated(found, count, width // count)
        place = T.ramp(r % self.PER_WORD, 1, width) % T.Broadcast(self.PER_WORD, width)
        two, four = T.Broadcast(2, width), T.Broadcast(4, width)
        shift = (place % two * four + place // two) * four
        found = (found >> T.Cast(f"uint32x{width}", shift)) & T.Broadcast(T.uint32(15), width)
        return T.Cast(f"float32x{width}", T.Cast(f"int32x{width}", found))

    def dot(self, weight: Reader, packed: Any, i: Any, first: Any, y: Any) -> None:
        """See Rows."""
        (words, zero_words, scales), lanes, count = weight.buffers, self.simd.lanes, self.PER_WORD
        start = T.min(first, self.rows - self.dot_rows) // count
        sums = zeros(count, lanes)
        with T.serial(self.columns // self.block) as group, T.sblock("group"):
            part = zeros(count, lanes)
            total = T.sblock_alloc_buffer((1,), "float32")
            T.buffer_store(total, T.float32(0), [0])
            with T.serial(self.block) as c:
                column = group * self.block + c
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
