"""Rows of stored weights on the CPU: widened to float32, or multiplied as they are stored.

A row may be widened into another order than that of its columns, where that spares shuffling: its
floats have positions, and activations are packed into the same order before they meet it.

The methods emit TIR into the function that is being built.
"""

from collections.abc import Iterator
from math import ceil
from typing import Any

from tvm.script import tirx as T

from engine.catalog import Quantization
from engine.embedded.kernels.linear.weights import Reader
from engine.embedded.kernels.simd import Simd, load, prefetch, repeated, spans, spread, store, total, widened

PIECE = 128
"""About so many positions of a panel are widened at a time: with the activations they fill half a cache."""


class Rows:
    """Any stored weights.

    `positions` is the length of a widened row, with what is stored past its last column. `dot_rows` is how
    many rows a `dot` has in flight, enough to hide the latency of a multiply-add; 0 where there is no `dot`.
    `tile_rows` is how many a tile has, `unit` what they are a multiple of; `block` positions are widened at a
    time. Floats of a panel lie row by row, or position by position (`by_position`).
    """

    dot_rows = 0
    unit = 1
    block = 1
    by_position = False

    def __init__(self, rows: int, columns: int, simd: Simd) -> None:
        self.rows, self.columns, self.simd = rows, columns, simd
        self.positions = columns
        self.tile_rows = min(simd.registers * 3 // 4 // self.unit * self.unit, rows)

    def row(self, r: Any, chunk: int) -> Any:
        """Row `r`, or the last one where chunks do not divide the rows and `r` is past it."""
        return r if self.rows % chunk == 0 else T.min(r, self.rows - 1)

    def pieces(self) -> list[tuple[int, int, int]]:
        """What a row is widened in: (first position, how many pieces, positions of each)."""
        size = ceil(PIECE / self.block) * self.block
        whole = self.positions // size
        found = ((0, whole, size), (whole * size, 1, self.positions - whole * size))
        return [(first, count, each) for first, count, each in found if count and each]

    def place(self, r: Any, p: Any, size: int) -> Any:
        """Where in a panel of `size` positions the float of row `r` at position `p` lies."""
        if self.by_position:
            return p * self.tile_rows + r
        # Were it a power of two, the rows of a panel would meet in one set of the cache.
        return r * (ceil(size / 16) * 16 + 16) + p

    def panel_size(self, size: int) -> int:
        """How many floats a panel of `size` positions has."""
        return int(self.place(self.tile_rows - 1, size - 1, size)) + 1

    def widen(self, weight: Reader, first: Any, start: Any, size: int, panel: Any) -> None:
        """`tile_rows` rows from `first` on, `size` positions from `start` on, into `panel`; see `place`."""
        raise NotImplementedError

    def pack(self, x: Any, n: Any, t: Any, lanes: int, packed: Any, base: Any, start: Any, size: int) -> None:
        """The tokens t * lanes + lane of x [n, K], by position: `size` of them from `start` on.

        packed[base + (p - start) * lanes + lane] is what the float at position p is multiplied with. What a
        lane has whose token does not exist comes to nothing.
        """
        with T.serial(size) as k, T.serial(lanes) as lane:
            value = self._activation(x, n, t * lanes + lane, start + k)
            T.buffer_store(packed, value, [base + k * lanes + lane])

    def _activation(self, x: Any, n: Any, token: Any, column: Any) -> Any:
        """x[token, column], 0 past the last column."""
        value = x[T.min(token, n - 1), T.min(column, self.columns - 1)]
        return (
            value if self.positions == self.columns else T.Select(column < self.columns, value, T.float32(0))
        )

    def dot(self, weight: Reader, packed: Any, i: Any, first: Any, y: Any) -> None:
        """y[i, first + r] for `dot_rows` rows, token `i` being packed with lanes = 1.

        The rows after these are prefetched: rows are too short for a processor to foresee where it goes on.
        """
        raise NotImplementedError

    def _finish(self, accumulators: dict[int, Any], i: Any, first: Any, y: Any, rest: Any = None) -> None:
        """Store, for each row, the sum of the lanes of its accumulators (by their width) and rest[r]."""
        for r in range(self.dot_rows):
            parts = [total(load(acc, r, 0, lanes=width), width) for width, acc in accumulators.items()]
            value = sum(parts[1:], parts[0]) if rest is None else sum(parts, rest[r])
            if self.rows % self.dot_rows == 0:
                T.buffer_store(y, value, [i, first + r])
            else:
                with T.If(first + r < self.rows), T.Then():
                    T.buffer_store(y, value, [i, first + r])


def zeros(count: int, width: int) -> Any:
    """A buffer of `count` vectors of float32, which all are 0."""
    buffer = T.sblock_alloc_buffer((count, width), "float32")
    for r in range(count):
        T.buffer_store(buffer, T.Broadcast(T.float32(0), width), [r, T.ramp(0, 1, width)])
    return buffer


def accumulate(acc: Any, r: int, width: int, value: Any) -> None:
    """Add `value` to the vector acc[r]."""
    T.buffer_store(acc, load(acc, r, 0, lanes=width) + value, [r, T.ramp(0, 1, width)])


def integers(words: Any, bits: int, j: int, width: int) -> Any:
    """The `j`-th integers, of that many bits each, of a vector of `width` words: not centred, float32."""
    found = words >> spread(T.uint32(bits * j), width)
    if bits * (j + 1) < 32:
        found = found & spread(T.uint32(2**bits - 1), width)
    # From int32: few processors convert unsigned integers at once.
    many = f"x{width}" if width > 1 else ""
    return T.Cast(f"float32{many}", T.Cast(f"int32{many}", found))


class FloatRows(Rows):
    """Weights stored as floats, row by row."""

    dot_rows = 8

    def widen(self, weight: Reader, first: Any, start: Any, size: int, panel: Any) -> None:
        """See Rows."""
        (stored,) = weight.buffers
        with T.serial(self.tile_rows) as r:
            for begin, vectors, width in spans(size, self.simd.lanes):
                with T.serial(vectors) as v:
                    p = begin + v * width
                    T.evaluate(prefetch(stored, first + r, start + p + size))
                    value = widened(load(stored, first + r, start + p, lanes=width), self.simd)
                    store(panel, value, self.place(r, p, size), lanes=width)

    def dot(self, weight: Reader, packed: Any, i: Any, first: Any, y: Any) -> None:
        """See Rows."""
        lanes, (stored,) = self.simd.lanes, weight.buffers
        whole = self.columns // lanes * lanes
        acc = zeros(self.dot_rows, lanes)
        rest = T.sblock_alloc_buffer((self.dot_rows,), "float32")
        with T.serial(whole // lanes) as k:
            for r in range(self.dot_rows):
                x = load(packed, i * self.columns + k * lanes, lanes=lanes)
                T.evaluate(prefetch(stored, first + r + self.dot_rows, k * lanes))
                w = load(stored, self.row(first + r, self.dot_rows), k * lanes, lanes=lanes)
                accumulate(acc, r, lanes, x * widened(w, self.simd))
        for r in range(self.dot_rows):
            T.buffer_store(rest, T.float32(0), [r])
        with T.serial(self.columns - whole) as k:
            for r in range(self.dot_rows):
                w = weight(self.row(first + r, self.dot_rows), whole + k)
                T.buffer_store(rest, rest[r] + packed[i * self.columns + whole + k] * w, [r])
        self._finish({lanes: acc}, i, first, y, rest)


class GroupedRows(Rows):
    """Group-quantized rows: words of `per_word` integers, the lowest first, and a scale for each group.

    A vector of words is unpacked with one shift for the first integers of all, one for the second and
    so on, so that is the order of positions: [block of words][integer in its word][word of the block].
    A block has as many words as a vector has lanes; what is left at the end goes group by group.
    """

    # As many instructions for an integer as four for a float: with more rows, loads wait too long.
    dot_rows = 4

    def __init__(self, rows: int, columns: int, simd: Simd, quantization: Quantization) -> None:
        super().__init__(rows, columns, simd)
        assert quantization.bits is not None
        self.bits, self.max_int = quantization.bits, quantization.max_int
        self.per_word = quantization.elements_per_word
        self.group_words = quantization.group_size // self.per_word
        self.words = -(-columns // quantization.group_size) * self.group_words
        self.positions = self.words * self.per_word
        self._wide = max(simd.lanes, self.group_words)
        self.block = self._wide * self.per_word

    def _spans(self, words: int) -> list[tuple[int, int, int]]:
        """What `words` of a row are made of, in blocks: (first word, how many blocks, words in each)."""
        whole = words // self._wide
        rest = (words - whole * self._wide) // self.group_words
        spans = ((0, whole, self._wide), (whole * self._wide, rest, self.group_words))
        return [span for span in spans if span[1]]

    def _blocks(self, words: int) -> Iterator[tuple[Any, int]]:
        """Inside a loop over those of `words`: the first word of each block, and how many words it has."""
        for first, count, width in self._spans(words):
            with T.serial(count) as b:
                yield first + b * width, width

    def _scales(self, scales: Any, row: Any, word: Any, width: int) -> Any:
        """The scales of `width` words, one for each word, as a float32 vector."""
        groups = width // self.group_words
        vector = widened(load(scales, row, word // self.group_words, lanes=groups), self.simd)
        return repeated(vector, groups, self.group_words)

    def widen(self, weight: Reader, first: Any, start: Any, size: int, panel: Any) -> None:
        """See Rows."""
        words, scales = weight.buffers
        begin = start // self.per_word
        with T.serial(self.tile_rows) as r:
            for word, width in self._blocks(size // self.per_word):
                centre = T.Broadcast(T.float32(self.max_int), width)
                T.evaluate(prefetch(words, first + r, begin + word + size // self.per_word))
                for j in range(self.per_word):
                    found = load(words, first + r, begin + word, lanes=width)
                    value = integers(found, self.bits, j, width) - centre
                    value = value * self._scales(scales, first + r, begin + word, width)
                    store(panel, value, self.place(r, word * self.per_word + j * width, size), lanes=width)

    def pack(self, x: Any, n: Any, t: Any, lanes: int, packed: Any, base: Any, start: Any, size: int) -> None:
        """See Rows."""
        for word, width in self._blocks(size // self.per_word):
            with T.serial(width) as v, T.serial(self.per_word) as j, T.serial(lanes) as lane:
                place = base + (word * self.per_word + j * width + v) * lanes + lane
                column = start + (word + v) * self.per_word + j
                T.buffer_store(packed, self._activation(x, n, t * lanes + lane, column), [place])

    def dot(self, weight: Reader, packed: Any, i: Any, first: Any, y: Any) -> None:
        """See Rows. The scale is factored out of the sum over the integers that share a lane."""
        words, scales = weight.buffers
        accumulators = {width: zeros(self.dot_rows, width) for _, _, width in self._spans(self.words)}
        for word, width in self._blocks(self.words):
            # sum((q - c) * x) = sum(q * x) - c * sum(x), whose second part is that of all rows.
            start = i * self.positions + word * self.per_word
            x = [load(packed, start + j * width, lanes=width) for j in range(self.per_word)]
            centre = T.sblock_alloc_buffer((width,), "float32")
            centred = sum(x[1:], x[0]) * T.Broadcast(T.float32(-self.max_int), width)
            T.buffer_store(centre, centred, [T.ramp(0, 1, width)])
            for r in range(self.dot_rows):
                row = self.row(first + r, self.dot_rows)
                T.evaluate(prefetch(words, first + r + self.dot_rows, word))
                value = load(centre, 0, lanes=width)
                for j in range(self.per_word):
                    value = value + x[j] * integers(load(words, row, word, lanes=width), self.bits, j, width)
                value = value * self._scales(scales, row, word, width)
                accumulate(accumulators[width], r, width, value)
        self._finish(accumulators, i, first, y)
