"""Prefill on the CPU: tiles of query rows against tiles of keys, one row a lane.

With a row a lane nothing crosses lanes: scores are rows by keys in registers, each a broadcast element of
a key times a vector of rows, and the softmax's maxima and sums are vectors. The query heads that share a
key head fill the lanes together.
"""

from math import ceil
from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels.attention.shape import NONE, AttentionShape, end_of_keys, first_key, score
from engine.embedded.kernels.simd import Simd, load, spans, store, widened

KEYS = 16
"""Keys in a tile."""
NOWHERE = -(2**30)
"""The position of a lane that has no row: before every key."""


def prefill_body(shape: AttentionShape, simd: Simd) -> Any:
    """The body of both prefill kernels: a task is a key head and a tile of rows."""

    def body(
        q: Any, qi: Any, keys: Any, qp: Any, kp: Any, o: Any, lse: Any, B: Any, n: Any, sm_scale: Any
    ) -> None:
        # Each sequence may leave one tile partly filled, hence + B.
        tiles = T.floordiv(T.Cast("int32", n) * shape.group, simd.lanes) + T.Cast("int32", B)
        with T.parallel(tiles * shape.num_kv_heads) as task, T.sblock("attention"):
            T.reads()
            T.writes()
            # Late tiles see more keys; taken in turns from both ends, every thread gets as much to do.
            turn = task % tiles
            tile = T.if_then_else(turn % 2 == 0, turn // 2, tiles - 1 - turn // 2)
            at = T.sblock_alloc_buffer((2,), "int32")
            T.buffer_store(at, -1, [0])
            T.buffer_store(at, tile, [1])
            with T.serial(T.Cast("int32", B)) as b:
                here = T.ceildiv((qi[b + 1] - qi[b]) * shape.group, simd.lanes)
                with T.If(at[0] < 0), T.Then(), T.If(at[1] < here):
                    with T.Then():
                        T.buffer_store(at, b, [0])
                    with T.Else():
                        T.buffer_store(at, at[1] - here, [1])
            with T.If(at[0] >= 0), T.Then():
                rows = _Rows(shape, simd, q, qp, qi[at[0]], qi[at[0] + 1], at[1], task // tiles)
                _tile(rows, keys(at[0]), kp[at[0]], o, lse, sm_scale)

    return body


class _Rows:
    """The rows of a tile: row r is query head r % group of token r // group of the sequence."""

    def __init__(
        self, shape: AttentionShape, simd: Simd, q: Any, qp: Any, first: Any, end: Any, tile: Any, head: Any
    ) -> None:
        self.shape, self.simd, self.q, self.qp = shape, simd, q, qp
        self.first, self.end, self.tile, self.kv_head = first, end, tile, head

    def place(self, lane: Any) -> tuple[Any, Any]:
        """Token and query head of a lane; the token may be past the end."""
        row = self.tile * self.simd.lanes + lane
        return self.first + row // self.shape.group, self.kv_head * self.shape.group + row % self.shape.group

    def pack(self, packed: Any, positions: Any) -> None:
        """Element x of the lanes at packed[x * lanes], 0 for a lane without a row, and their positions."""
        lanes, d = self.simd.lanes, self.shape.head_dim
        with T.serial(lanes) as lane:
            token, head = self.place(lane)
            with T.If(token < self.end):
                with T.Then():
                    T.buffer_store(positions, self.qp[token], [lane])
                    with T.serial(d) as x:
                        T.buffer_store(packed, T.Cast("float32", self.q[token, head, x]), [x * lanes + lane])
                with T.Else():
                    T.buffer_store(positions, NOWHERE, [lane])
                    with T.serial(d) as x:
                        T.buffer_store(packed, T.float32(0), [x * lanes + lane])


def _tile(rows: _Rows, keys: tuple[Any, Any, Any], kstart: Any, o: Any, lse: Any, sm_scale: Any) -> None:
    shape, simd = rows.shape, rows.simd
    lanes, d = simd.lanes, shape.head_dim
    height = min(simd.registers // 2, KEYS)
    blocks = ceil(d / height)
    # Were it a power of two, the keys of a panel would meet in one set of the cache.
    stride = blocks * height + 16
    key_length, key, value = keys

    packed = T.sblock_alloc_buffer((d * lanes,), "float32")
    panel = T.sblock_alloc_buffer((KEYS * stride,), "float32")
    out = T.sblock_alloc_buffer((blocks * height * lanes,), "float32")
    seen = T.sblock_alloc_buffer((KEYS * lanes,), "float32")
    # By lane: the last and the first position that is visible; maximum and sum, factor for what came before.
    span = T.sblock_alloc_buffer((2, lanes), "int32")
    state = T.sblock_alloc_buffer((3, lanes), "float32")
    last = T.sblock_alloc_buffer((lanes,), "int32")
    # Of all lanes: lowest and highest position, first tile of keys and how many.
    at = T.sblock_alloc_buffer((4,), "int32")

    def vector(buffer: Any, *index: Any) -> Any:
        return load(buffer, *index, lanes=lanes)

    def put(buffer: Any, found: Any, *index: Any) -> None:
        store(buffer, found, *index, lanes=lanes)

    def same(number: float) -> Any:
        return T.Broadcast(T.float32(number), lanes)

    rows.pack(packed, last)
    T.buffer_store(at, rows.qp[T.min(rows.first + rows.tile * lanes // shape.group, rows.end - 1)], [0])
    T.buffer_store(at, at[0], [1])
    with T.serial(lanes) as lane:
        with T.If(last[lane] != NOWHERE), T.Then():
            T.buffer_store(at, T.min(at[0], last[lane]), [0])
            T.buffer_store(at, T.max(at[1], last[lane]), [1])
        first_seen = kstart + first_key(0, last[lane], kstart, key_length, sm_scale, shape)
        T.buffer_store(span, first_seen, [1, lane])
        T.buffer_store(span, T.min(last[lane], kstart + key_length - 1), [0, lane])
    begin = first_key(0, at[0], kstart, key_length, sm_scale, shape)
    end = end_of_keys(0, begin, at[1], kstart, key_length, shape)
    T.buffer_store(at, begin // KEYS, [2])
    T.buffer_store(at, T.ceildiv(end, KEYS) - begin // KEYS, [3])

    put(state, same(NONE), 0, 0)
    put(state, same(0), 1, 0)
    with T.serial(blocks * height) as x:
        put(out, same(0), x * lanes)

    with T.serial(at[3]) as t:
        start = (at[2] + t) * KEYS
        _fill(panel, key, start, key_length, rows.kv_head, shape, simd, stride)
        for part in range(0, KEYS, height):
            _scores(rows, packed, panel, seen, span, kstart + start, part, height, stride, sm_scale)
        top = vector(state, 0, 0)
        for j in range(KEYS):
            top = T.max(top, vector(seen, j * lanes))
        put(state, T.exp2(vector(state, 0, 0) - top), 2, 0)
        put(state, top, 0, 0)
        put(state, vector(state, 1, 0) * vector(state, 2, 0), 1, 0)
        for j in range(KEYS):
            found = vector(seen, j * lanes)
            weight = T.Select(found > same(NONE), T.exp2(found - vector(state, 0, 0)), same(0))
            put(seen, weight, j * lanes)
            put(state, vector(state, 1, 0) + vector(seen, j * lanes), 1, 0)
        _fill(panel, value, start, key_length, rows.kv_head, shape, simd, stride)
        with T.serial(blocks) as block, T.sblock("values"):
            acc = T.sblock_alloc_buffer((height, lanes), "float32")
            for r in range(height):
                put(acc, vector(out, (block * height + r) * lanes) * vector(state, 2, 0), r, 0)
            with T.serial(KEYS) as j:
                for r in range(height):
                    element = T.Broadcast(panel[j * stride + block * height + r], lanes)
                    put(acc, vector(acc, r, 0) + vector(seen, j * lanes) * element, r, 0)
            for r in range(height):
                put(out, vector(acc, r, 0), (block * height + r) * lanes)

    with T.serial(lanes) as lane:
        token, head = rows.place(lane)
        total = state[1, lane]
        with T.If(token < rows.end), T.Then():
            with T.serial(d) as x:
                found = T.if_then_else(total > 0, out[x * lanes + lane] / total, T.float32(0))
                T.buffer_store(o, T.Cast(shape.dtype, found), [token, head, x])
            found = T.if_then_else(total > 0, state[0, lane] + T.log2(total), T.float32(NONE))
            T.buffer_store(lse, found, [token, head])


def _fill(
    panel: Any, read: Any, start: Any, length: Any, head: Any, shape: AttentionShape, simd: Simd, stride: int
) -> None:
    """Keys or values from `start` on, side by side in float32; the last one where there are no more."""
    with T.serial(KEYS) as j:
        for x, count, width in spans(shape.head_dim, simd.lanes):
            with T.serial(count) as i:
                place = x + i * width
                found = widened(read(T.min(start + j, length - 1), head, place, width), simd)
                store(panel, found, j * stride + place, lanes=width)


def _scores(
    rows: _Rows,
    packed: Any,
    panel: Any,
    seen: Any,
    span: Any,
    position: Any,
    part: int,
    height: int,
    stride: int,
    sm_scale: Any,
) -> None:
    """seen[j] of `height` keys from `part` on: the masked scores of all rows, in base 2."""
    lanes = rows.simd.lanes
    with T.sblock("scores"):
        acc = T.sblock_alloc_buffer((height, lanes), "float32")
        lane = T.ramp(0, 1, lanes)
        for r in range(height):
            T.buffer_store(acc, T.Broadcast(T.float32(0), lanes), [r, lane])
        with T.serial(rows.shape.head_dim) as x:
            for r in range(height):
                step = load(packed, x * lanes, lanes=lanes) * T.Broadcast(
                    panel[(part + r) * stride + x], lanes
                )
                T.buffer_store(acc, load(acc, r, 0, lanes=lanes) + step, [r, lane])
        for r in range(height):
            here = T.Broadcast(position + part + r, lanes)
            visible = T.And(load(span, 1, 0, lanes=lanes) <= here, here <= load(span, 0, 0, lanes=lanes))
            found = score(load(acc, r, 0, lanes=lanes), sm_scale, rows.shape)
            found = T.Select(visible, found, T.Broadcast(T.float32(NONE), lanes))
            T.buffer_store(seen, found, [T.ramp((part + r) * lanes, 1, lanes)])
