"""What the vector unit of a processor holds, and vector expressions over buffers."""

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.target import Target
from tvm.target.codegen import llvm_get_cpu_features


@dataclass(frozen=True, kw_only=True)
class Simd:
    """The vector registers of a processor: how many, and how many float32 lanes each has."""

    lanes: int
    registers: int

    @staticmethod
    def of(target: Target) -> "Simd":
        """The vector unit that code for an LLVM `target` may use."""
        features = llvm_get_cpu_features(target)
        if "avx512f" in features:
            return Simd(lanes=16, registers=32)
        if "avx" in features:
            return Simd(lanes=8, registers=16)
        # Both have 128 bits; only Arm's NEON has 32 of them.
        return Simd(lanes=4, registers=32 if "neon" in features else 16)


def load(buffer: Any, *index: Any, lanes: int) -> Any:
    """`lanes` neighbours along the last axis of `buffer`, from `index` on, as one vector."""
    *outer, first = index
    if lanes == 1:
        return tirx.BufferLoad(buffer, list(index))
    return tirx.BufferLoad(buffer, [*outer, tirx.Ramp(first, 1, lanes)])


def total(vector: Any, lanes: int) -> Any:
    """The sum of a vector's lanes, in halves: few instructions, and a small rounding error."""
    while lanes > 1:
        lanes //= 2
        low = tirx.Shuffle([vector], list(range(lanes)))
        vector = low + tirx.Shuffle([vector], list(range(lanes, 2 * lanes)))
    return vector


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
