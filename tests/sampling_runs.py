"""The sampling functions of a library, called with numpy arrays on the CPU or in a real WebGPU."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import tvm
from tvm import relax
from webgpu_kernels.device import WebGPU

from engine.embedded.kernels.sampling import Rows, attach_sampling

Run = Callable[..., Any]
"""run(vocab_size, function name, *arrays): the result as numpy; arrays changed in place are changed."""

LLVM = tvm.target.Target({"kind": "llvm"})
MOST = 8
"""Rows that a call may have."""


@cache
def sampling_module(vocab_size: int, gpu: bool, *, several: bool, active: int | None = None) -> tvm.IRModule:
    """The functions for WebLLM's one row, or for the `several` of MLC's engine."""
    rows = Rows(width=vocab_size, active=active or vocab_size, gpu=gpu, several=several)
    return attach_sampling(tvm.IRModule(), rows, MOST if several else 1)


@cache
def _cpu_machine(vocab_size: int, active: int | None) -> relax.VirtualMachine:
    module = sampling_module(vocab_size, False, several=True, active=active)
    return relax.VirtualMachine(relax.build(module, target=LLVM), tvm.cpu())


def on_cpu(vocab_size: int, name: str, *args: np.ndarray, active: int | None = None) -> Any:
    """A library for the CPU has functions for several rows, which take one as well."""
    tensors = [tvm.runtime.tensor(arg) for arg in args]
    result = _cpu_machine(vocab_size, active)[name](*tensors)
    for arg, tensor in zip(args, tensors, strict=True):
        arg[...] = tensor.numpy()
    if isinstance(result, tvm.runtime.Tensor):
        return result.numpy()
    return tuple(part.numpy() for part in result)


def on_webgpu(device: WebGPU, *, several: bool = False) -> Run:
    """A library for WebGPU has functions for one row; `several` are those of other GPUs, in WGSL."""

    def run(vocab_size: int, name: str, *args: np.ndarray, active: int | None = None) -> Any:
        return device.run(sampling_module(vocab_size, True, several=several, active=active), name, *args)

    return run


def f32(*values: float) -> np.ndarray:
    """A float32 array."""
    return np.array(values, np.float32)


def i32(*values: int) -> np.ndarray:
    """An int32 array."""
    return np.array(values, np.int32)


def softmax64(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of one row in double precision."""
    shifted = (logits.astype(np.float64) - float(logits.max())) / float(np.float32(temperature))
    weights = np.exp(shifted)
    return weights / weights.sum()
