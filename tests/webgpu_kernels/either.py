"""One way to call a kernel on arrays, on the CPU or in a real WebGPU."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import te
from tvm.s_tir import dlight
from tvm.target import Target
from webgpu_kernels.device import TARGET, WebGPU


@dataclass(frozen=True)
class Device:
    """`call` takes a PrimFunc and its arguments; arrays are written in place."""

    gpu: bool
    call: Callable[..., None]

    def compute(self, expression: Callable[..., te.Tensor], *arrays: NDArray[Any]) -> NDArray[Any]:
        """The float32 result of a tensor expression, with the schedule that a library gives it."""
        inputs = [te.placeholder(a.shape, str(a.dtype), f"x{i}") for i, a in enumerate(arrays)]
        out = expression(*inputs)
        func = te.create_prim_func([*inputs, out])
        if self.gpu:
            with TARGET:
                mod = dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())(tvm.IRModule({"main": func}))
            func = mod["main"]
        result = np.full([int(size) for size in out.shape], np.nan, "f4")
        self.call(func, *arrays, result)
        return result


def cpu() -> Device:
    """This machine."""

    def call(func: tvm.tirx.PrimFunc, *arguments: Any) -> None:
        built = tvm.compile(func.with_attr("global_symbol", "main"), target=Target({"kind": "llvm"}))
        given = [tvm.runtime.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
        built["main"](*given)
        for array, tensor in zip(arguments, given, strict=True):
            if isinstance(array, np.ndarray):
                array[...] = tensor.numpy()

    return Device(gpu=False, call=call)


def webgpu(page: WebGPU) -> Device:
    """Chromium's WebGPU."""

    def call(func: tvm.tirx.PrimFunc, *arguments: Any) -> None:
        page.call(func.with_attr("global_symbol", "main"), *arguments)

    return Device(gpu=True, call=call)
