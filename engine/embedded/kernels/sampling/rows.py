"""What sampling kernels are made for: the width of logits, how many rows there are, and the device.

For sums, a row is cut into tiles of TILE elements, one workgroup each; what the tiles found is combined in
a fixed order, so the same logits always give the same probabilities and the same token. On a CPU the tiles
are a plain loop and the sums are the same sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

THREADS = 256
"""Threads of a workgroup."""
TILE = 4096
EACH = TILE // THREADS
"""Elements of one thread, next to each other."""


def tiles(width: int) -> int:
    """How many tiles a row of `width` elements has."""
    return -(-width // TILE)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of logits, `width` wide; tokens from `active` on are padding of the vocabulary.

    With `several`, the number of rows is a variable of each kernel, and indices say which row is meant,
    as MLC's engine calls it. Without, there is one row, as in WebLLM: kernels have neither the variable
    nor the indices, which are always 0.
    """

    width: int
    active: int
    gpu: bool
    several: bool

    def count(self, name: str) -> Any:
        """How many rows (or samples) there are: a variable that the buffers of a kernel define, or 1."""
        return tirx.Var(name, "int64") if self.several else 1

    def over(self, count: Any) -> Any:
        """The loop over rows around those over workgroups and threads."""
        if self.gpu and self.several:
            return T.thread_binding(count, thread="blockIdx.y")
        return T.serial(count)

    def of(self, indices: Any, i: Any) -> Any:
        """The row that `indices` names for entry `i`."""
        return indices[i] if self.several else 0

    def groups(self, entries: Any) -> Any:
        """How many workgroups `entries`, a variable, take; one for none, since devices refuse no work."""
        groups = T.ceildiv(entries, THREADS)
        return T.max(groups, T.int64(1)) if self.several else groups

    def loops(self) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """The loops over workgroups and over the threads of one: bound on a GPU, plain on a CPU.

        Fit for kernels without barriers, whose threads know nothing of each other.
        """
        if self.gpu:
            return (
                lambda extent: T.thread_binding(extent, thread="blockIdx.x"),
                lambda extent: T.thread_binding(extent, thread="threadIdx.x"),
            )
        return T.serial, T.serial
