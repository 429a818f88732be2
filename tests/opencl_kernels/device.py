"""Runs a whole library compiled for OpenCL, in this process: kernels by PoCL, all else as on any device.

The device code is the OpenCL C that a package would hold. The host code that TVM makes beside it is
compiled for this machine and, where it would launch a kernel, finds a function that hands the launch to
PoCL, an OpenCL for processors. Its kernels are code of this process, so tensors stay where they are and
TVM's KV cache is the one of a CPU library.
"""

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import numpy as np
import pyopencl as cl
import tvm
from tvm.target import Target
from tvm_ffi.registry import remove_global_func

from engine.embedded import library, lower
from engine.embedded.local import LocalModel

_PARAMETERS = re.compile(r"__kernel void (?:__attribute__\(\([^)]*\)+\) )?(\w+)\(([^)]*)\)")
_NUMBERS = {"int": np.int32, "uint": np.uint32, "long": np.int64, "ulong": np.uint64, "float": np.float32}


@dataclass(frozen=True)
class Kernel:
    """One device function: its OpenCL C, the types of its plain arguments, and how it is launched."""

    name: str
    types: tuple[str, ...]
    launch_tags: tuple[str, ...]


def make_target() -> Target:
    """That of the product, for tensors in this process's memory."""
    target = lower.make_target("opencl")
    settings = {**dict(target.export()), "target_device_type": 1}
    return Target(settings)


class OpenCL:
    """PoCL; a context manager, in which libraries can be run."""

    def __enter__(self) -> Self:
        device = next(
            device
            for platform in cl.get_platforms()
            if platform.name == "Portable Computing Language"
            for device in platform.get_devices()
        )
        self._context = cl.Context([device])
        self._queue = cl.CommandQueue(self._context)
        self._launched: list[str] = []
        self.launches: dict[str, int] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._launched:
            remove_global_func(name)

    def model(self, folder: Path, config: dict[str, Any]) -> LocalModel:
        """The export in `folder`, with a library for OpenCL in place of its own."""
        target = make_target()
        plan = library.plan_of(config)
        elements = library.cache_elements(plan)
        mod = lower.lower(library.build_module(plan, target), target, cache_elements=elements)
        planned = lower.planned_bytes(mod)
        mod = library.with_metadata(mod, library.metadata(plan, planned))
        with self._collecting():
            executable = lower.code(mod, target, system_lib=False)
        with mock.patch.object(tvm.runtime, "load_module", return_value=executable):
            return LocalModel(folder, folder / "unused")

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        """Keep the device modules of a build out of the host module, and take their launches over."""
        builder = sys.modules["tvm.tirx.build"]
        compile_one = builder.codegen_build

        def collect(mod: tvm.IRModule, target: Target) -> Any:
            built = compile_one(mod, target)
            if target.kind.name != "opencl":
                return built
            source = built.inspect_source()
            program = cl.Program(self._context, source).build()
            types = {
                name: tuple(part.split()[0] for part in parts.split(","))
                for name, parts in _PARAMETERS.findall(source)
            }
            for variable, function in mod.functions.items():
                name = str(function.attrs.get("global_symbol", None) or variable.name_hint)
                tags = tuple(str(tag) for tag in function.attrs["tirx.kernel_launch_params"])
                self._take(Kernel(name, types[name], tags), getattr(program, name))
            return None

        with mock.patch.object(builder, "codegen_build", collect):
            yield

    def _take(self, kernel: Kernel, code: cl.Kernel) -> None:
        tvm.register_global_func(kernel.name, lambda *args: self._launch(kernel, code, args), override=True)
        self._launched.append(kernel.name)
        self.launches[kernel.name] = 0

    def _launch(self, kernel: Kernel, code: cl.Kernel, args: tuple[Any, ...]) -> None:
        given, launch = args[: len(kernel.types)], args[len(kernel.types) :]
        sizes = dict(zip(kernel.launch_tags, launch, strict=True))
        grid = [sizes.get(f"blockIdx.{axis}", 1) for axis in "xyz"]
        threads = [sizes.get(f"threadIdx.{axis}", 1) for axis in "xyz"]
        assert np.prod(threads) <= 256
        if 0 in grid:
            return
        for index, (kind, value) in enumerate(zip(kernel.types, given, strict=True)):
            if isinstance(value, ctypes.c_void_p):
                assert kind == "__global", kernel
                # Of shared memory only the address is passed on.
                first = (ctypes.c_uint8 * 1).from_address(value.value)
                code.set_arg(index, cl.SVM(np.frombuffer(first, "u1")))
            else:
                code.set_arg(index, _NUMBERS[kind](value))
        cl.enqueue_nd_range_kernel(
            self._queue, code, tuple(g * t for g, t in zip(grid, threads, strict=True)), tuple(threads)
        )
        self._queue.finish()
        self.launches[kernel.name] += 1
