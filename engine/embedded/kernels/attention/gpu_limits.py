"""Limits that every WebGPU device offers: 256 threads, 32 KiB of shared memory, 10 buffers.

Barriers stand in uniform control flow only: what bounds a loop around one is read from buffers that
the kernel does not write, at indices that all threads share (WGSL checks this when a shader is made).
"""

THREADS = 256
SIDE = 16  # rows of queries and keys in a tile of the prefill kernel


def padded(head_dim: int) -> int:
    """The head in whole tiles."""
    return (head_dim + SIDE - 1) // SIDE * SIDE


def slice_width(columns: int, limit: int) -> int:
    """The widest slice of the head, a multiple of 16 up to `limit`, that divides it evenly."""
    return max(s for s in range(SIDE, limit + 1, SIDE) if columns % s == 0)
