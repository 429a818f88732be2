"""Speed of the CPU's products by how weights are stored, beside that of float32, on this processor.

`python -m benchmarks.products [--shape ROWS COLUMNS] [--tokens N ...] [--rounds N]`. One thread, processor
time, the least of some rounds, in which all take turns: the load of a shared machine hits all alike. A
ratio of 1.0 is as many products of two numbers in a second as with weights stored as float32.
"""

import argparse
import os
import time
from typing import Any

import ml_dtypes
import numpy as np

from engine.catalog import QUANTIZATIONS, Layout, Quantization

BASE = ("q0f32", None)
FORMS: tuple[tuple[str, Layout | None], ...] = (
    BASE,
    ("q0f16", None),
    ("q4f32_1", "NK"),
    ("q4f16_1", "NK"),
    ("q3f16_1", "NK"),
    ("q4f16_0", "KN"),
    ("q3f16_0", "KN"),
    ("q4bf16_0", "KN"),
    ("q4f16_autoawq", "KN"),
)


def stored(rows: int, columns: int, quantization: Quantization, layout: Layout | None) -> list[Any]:
    """Random stored tensors of a matrix [rows, columns]."""
    rng = np.random.default_rng(0)
    bfloat = quantization.model_dtype == "bfloat16"
    dtype = np.dtype(ml_dtypes.bfloat16 if bfloat else quantization.model_dtype)
    if layout is None:
        return [rng.standard_normal((rows, columns), np.float32).astype(dtype)]
    groups = -(-columns // quantization.group_size)

    def words(*shape: int) -> Any:
        return rng.integers(0, 2**32, shape, np.uint32)

    scales = rng.uniform(0.1, 1, (groups, rows)).astype(dtype)
    if quantization.from_awq:
        return [words(columns, rows // 8), words(groups, rows // 8), scales]
    per_group = quantization.group_size // quantization.elements_per_word
    if layout == "KN":
        return [words(groups * per_group, rows), scales]
    return [words(rows, groups * per_group), np.ascontiguousarray(scales.T)]


def main() -> None:
    """Print one line for each form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", nargs=2, type=int, default=(4096, 640), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 16, 1])
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = "1"

    import tvm

    from engine.embedded.kernels.linear import matmul_cpu
    from engine.embedded.kernels.simd import Simd
    from engine.embedded.lower import make_target

    target, (rows, columns) = make_target("cpu"), given.shape
    kernels = {}
    for name, layout in FORMS:
        func = matmul_cpu(rows, columns, QUANTIZATIONS[name], layout, Simd.of(target))
        built = tvm.compile(func.with_attr("global_symbol", "main"), target=target)["main"]
        tensors = stored(rows, columns, QUANTIZATIONS[name], layout)
        kernels[name, layout] = built, [tvm.runtime.tensor(tensor) for tensor in tensors]
    for tokens in given.tokens:
        x = tvm.runtime.tensor(np.random.default_rng(1).standard_normal((tokens, columns), np.float32))
        y = tvm.runtime.tensor(np.empty((tokens, rows), np.float32))
        least = dict.fromkeys(kernels, float("inf"))
        for _ in range(given.rounds):
            for form, (kernel, tensors) in kernels.items():
                began = time.process_time()
                kernel(x, *tensors, y)
                least[form] = min(least[form], time.process_time() - began)
        print(f"{rows}x{columns}, {tokens} tokens")
        for (name, layout), seconds in least.items():
            rate = 2 * tokens * rows * columns / seconds / 1e9
            print(f"  {name:14} {layout or '':2} {rate:6.1f} GFLOP/s, ratio {least[BASE] / seconds:.2f}")


if __name__ == "__main__":
    main()
