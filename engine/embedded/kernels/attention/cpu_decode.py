"""Decode on the CPU: one query head of a sequence a task, a page of keys at a time."""

from typing import Any

from tvm.script import tirx as T

from engine.embedded.kernels.attention.shape import NONE, AttentionShape, end_of_keys, first_key, score
from engine.embedded.kernels.simd import Simd, load, peak, spans, spread, store, total, widened


def decode_body(shape: AttentionShape, simd: Simd) -> Any:
    """The body of the decode kernel, whose keys lie in pages."""

    def body(q: Any, keys: Any, qp: Any, kp: Any, o: Any, lse: Any, B: Any, sm_scale: Any) -> None:
        heads = shape.num_heads
        with T.parallel(T.Cast("int32", B) * heads) as task, T.sblock("attention"):
            T.reads()
            T.writes()
            _row(shape, simd, q, keys(task // heads), qp, kp, o, lse, task // heads, task % heads, sm_scale)

    return body


def _row(
    shape: AttentionShape,
    simd: Simd,
    q: Any,
    keys: tuple[Any, Any, Any],
    qp: Any,
    kp: Any,
    o: Any,
    lse: Any,
    b: Any,
    h: Any,
    sm_scale: Any,
) -> None:
    """One query against all its visible keys."""
    d, page = shape.head_dim, shape.page_size
    lanes = min(simd.lanes, page)
    key_length, key, value = keys
    head = h // shape.group

    query = T.sblock_alloc_buffer((d,), "float32")
    out = T.sblock_alloc_buffer((d,), "float32")
    seen = T.sblock_alloc_buffer((page,), "float32")
    # maximum, sum, factor for what came before, maximum before
    state = T.sblock_alloc_buffer((4,), "float32")
    at = T.sblock_alloc_buffer((2,), "int32")
    with T.serial(d) as x:
        T.buffer_store(query, T.Cast("float32", q[b, h, x]), [x])
        T.buffer_store(out, T.float32(0), [x])
    T.buffer_store(state, T.float32(NONE), [0])
    T.buffer_store(state, T.float32(0), [1])
    T.buffer_store(at, first_key(0, qp[b], kp[b], key_length, sm_scale, shape), [0])
    T.buffer_store(at, end_of_keys(0, at[0], qp[b], kp[b], key_length, shape), [1])

    pages = T.if_then_else(at[0] < at[1], T.ceildiv(at[1], page) - at[0] // page, 0)
    with T.serial(pages) as t:
        # Keys of a page lie side by side, which the multiple of its size tells the compiler.
        start = (at[0] // page + t) * page
        _scores(shape, simd, query, key, head, start, seen)
        T.buffer_store(state, state[0], [3])
        for j in range(0, page, lanes):
            ramp = T.ramp(start + j, 1, lanes)
            visible = T.And(T.Broadcast(at[0], lanes) <= ramp, ramp < T.Broadcast(at[1], lanes))
            found = score(load(seen, j, lanes=lanes), sm_scale, shape)
            found = T.Select(visible, found, T.Broadcast(T.float32(NONE), lanes))
            T.buffer_store(seen, found, [T.ramp(j, 1, lanes)])
            T.buffer_store(state, T.max(state[0], peak(load(seen, j, lanes=lanes), lanes)), [0])
        T.buffer_store(state, T.exp2(state[3] - state[0]), [2])
        T.buffer_store(state, state[1] * state[2], [1])
        for j in range(0, page, lanes):
            # What is masked comes out as 2^-1e30, for a page has a key that is visible.
            weight = T.exp2(load(seen, j, lanes=lanes) - T.Broadcast(state[0], lanes))
            T.buffer_store(seen, weight, [T.ramp(j, 1, lanes)])
            T.buffer_store(state, state[1] + total(load(seen, j, lanes=lanes), lanes), [1])
        low, high = T.max(at[0] - start, 0), T.min(at[1] - start, page)
        _add_values(shape, simd, value, head, start, low, high, seen, state[2], out)

    with T.serial(d) as x:
        found = T.if_then_else(state[1] > 0, out[x] / state[1], T.float32(0))
        T.buffer_store(o, T.Cast(shape.dtype, found), [b, h, x])
    found = T.if_then_else(state[1] > 0, state[0] + T.log2(state[1]), T.float32(NONE))
    T.buffer_store(lse, found, [b, h])


def _scores(
    shape: AttentionShape, simd: Simd, query: Any, key: Any, head: Any, start: Any, seen: Any
) -> None:
    """seen[j] = query . key `start` + j for the keys of a page, also those that do not exist."""
    height = min(simd.registers // 2, shape.page_size)
    for part in range(0, shape.page_size, height):
        with T.sblock("scores"):
            sums = T.sblock_alloc_buffer((height,), "float32")
            for r in range(height):
                T.buffer_store(sums, T.float32(0), [r])
            for x, count, width in spans(shape.head_dim, simd.lanes):
                with T.sblock("span"):
                    acc = T.sblock_alloc_buffer((height, width), "float32")
                    for r in range(height):
                        store(acc, spread(T.float32(0), width), r, 0, lanes=width)
                    with T.serial(count) as i:
                        for r in range(height):
                            step = load(query, x + i * width, lanes=width)
                            step = step * widened(key(start + part + r, head, x + i * width, width), simd)
                            store(acc, load(acc, r, 0, lanes=width) + step, r, 0, lanes=width)
                    for r in range(height):
                        T.buffer_store(sums, sums[r] + total(load(acc, r, 0, lanes=width), width), [r])
            for r in range(height):
                T.buffer_store(seen, sums[r], [part + r])


def _add_values(
    shape: AttentionShape,
    simd: Simd,
    value: Any,
    head: Any,
    start: Any,
    low: Any,
    high: Any,
    seen: Any,
    factor: Any,
    out: Any,
) -> None:
    """Out = out * `factor` + the sum of seen[j] * value `start` + j for j from `low` up to `high`."""
    most = simd.registers // 2
    for x, count, width in spans(shape.head_dim, simd.lanes):
        for first in range(0, count, most):
            vectors = range(min(most, count - first))
            with T.sblock("values"):
                acc = T.sblock_alloc_buffer((len(vectors), width), "float32")
                for r in vectors:
                    old = load(out, x + (first + r) * width, lanes=width) * spread(factor, width)
                    store(acc, old, r, 0, lanes=width)
                with T.serial(high - low) as j:
                    for r in vectors:
                        weight = spread(seen[low + j], width)
                        found = value(start + low + j, head, x + (first + r) * width, width)
                        step = weight * widened(found, simd)
                        store(acc, load(acc, r, 0, lanes=width) + step, r, 0, lanes=width)
                for r in vectors:
                    store(out, load(acc, r, 0, lanes=width), x + (first + r) * width, lanes=width)
