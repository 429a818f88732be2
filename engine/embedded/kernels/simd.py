"""What the vector unit of a processor holds, and vector expressions over buffers."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target
from tvm.target.codegen import llvm_get_cpu_features


@dataclass(frozen=True, kw_only=True)
class Simd:
    """The vector registers of a processor: how many, and how many float32 lanes each has.

    `half`: whether an instruction converts float16; where none does, a library function is called a lane.
    """

    lanes: int
    registers: int
    half: bool = True

    @staticmethod
    def of(target: Target) -> "Simd":
        """The vector unit that code for an LLVM `target` may use."""
        features = llvm_get_cpu_features(target)
        if "avx512f" in features:
            return Simd(lanes=16, registers=32)
        if "avx" in features:
            return Simd(lanes=8, registers=16, half="f16c" in features)
        # Both have 128 bits; only Arm's NEON has 32 of them.
        neon = "neon" in features
        return Simd(lanes=4, registers=32 if neon else 16, half=neon)


def load(buffer: Any, *index: Any, lanes: int) -> Any:
    """`lanes` neighbours along the last axis of `buffer`, from `index` on, as one vector."""
    *outer, first = index
    if lanes == 1:
        return tirx.BufferLoad(buffer, list(index))
    return tirx.BufferLoad(buffer, [*outer, tirx.Ramp(first, 1, lanes)])


def store(buffer: Any, value: Any, *index: Any, lanes: int) -> None:
    """Emit that the `lanes` neighbours of `buffer` from `index` on become `value`."""
    *outer, first = index
    T.buffer_store(buffer, value, [*outer, first if lanes == 1 else tirx.Ramp(first, 1, lanes)])


def spread(value: Any, lanes: int) -> Any:
    """A vector that has `value` in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def widened(value: Any, simd: Simd) -> Any:
    """A vector (or one) of stored floats as float32."""
    kind, _, lanes = str(value.ty).partition("x")
    many = f"x{lanes}" if lanes else ""
    if kind != "float16" or simd.half:
        return tirx.Cast(f"float32{many}", value)
    bits = tirx.Cast(f"uint32{many}", tirx.reinterpret(f"uint16{many}", value))
    magnitude = (bits & tirx.const(0x7FFF, "uint32")) << tirx.const(13, "uint32")
    # Exponents of float32 are biased by 112 more than those of float16; subnormals come out right too.
    finite = tirx.reinterpret(f"float32{many}", magnitude) * tirx.const(2.0**112, "float32")
    special = tirx.reinterpret(f"float32{many}", magnitude | tirx.const(0x7F800000, "uint32"))
    found = tirx.Select(magnitude < tirx.const(0x7C00 << 13, "uint32"), finite, special)
    sign = (bits & tirx.const(0x8000, "uint32")) << tirx.const(16, "uint32")
    return tirx.reinterpret(f"float32{many}", tirx.reinterpret(f"uint32{many}", found) | sign)


def total(vector: Any, lanes: int) -> Any:
    """The sum of a vector's lanes, in halves: few instructions, and a small rounding error."""
    while lanes > 1:
        lanes //= 2
        low = tirx.Shuffle([vector], list(range(lanes)))
        vector = low + tirx.Shuffle([vector], list(range(lanes, 2 * lanes)))
    return vector


def peak(vector: Any, lanes: int) -> Any:
    """The largest of a vector's lanes."""
    while lanes > 1:
        lanes //= 2
        low = tirx.Shuffle([vector], list(range(lanes)))
        vector = tirx.max(low, tirx.Shuffle([vector], list(range(lanes, 2 * lanes))))
    return vector


def spans(size: int, lanes: int) -> list[tuple[int, int, int]]:
    """What a row of `size` is read in: (start, how many vectors, lanes of each), ever narrower ones."""
    found, start = [], 0
    while start < size:
        while lanes > size - start:
            lanes //= 2
        count = (size - start) // lanes
        found.append((start, count, lanes))
        start += count * lanes
    return found


def repeated(vector: Any, lanes: int, times: int) -> Any:
    """Each of a vector's lanes `times` times: [a, b] to [a, a, ..., b, b, ...]."""
    if times == 1:
        return vector
    if lanes == 1:
        return tirx.Broadcast(vector, times)
    # TVM wants as many lanes to choose from as are chosen.
    return tirx.Shuffle([vector] * times, [i for i in range(lanes) for _ in range(times)])


def prefetch(buffer: Any, *index: Any) -> Any:
    """A call that asks for a cache line; the index may lie outside of `buffer`."""
    address = tirx.address_of(tirx.BufferLoad(buffer, list(index)))
    read, keep, data = (tirx.const(value, "int32") for value in (0, 3, 1))
    return tirx.call_llvm_intrin("void", "llvm.prefetch", address, read, keep, data)
