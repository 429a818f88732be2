"""Runs TVM functions compiled for WebGPU in headless Chromium, on arrays of this process.

The device code is the WGSL that a package would hold, in a real WebGPU. The host code that TVM makes
beside it (argument checks, shapes, grid sizes) is compiled for this machine and, where it would launch
a kernel, finds a function that hands the launch to the browser. So what runs is the whole lowered
function, with no wasm runtime between.

    with WebGPU() as gpu:
        gpu.call(prim_func, x, y, 3)                  # arrays are written in place, as kernels do
        gpu.run(relax_module, "name", x)              # a relax function; returns numpy arrays
        gpu.kernels(prim_func)                        # the WGSL, for checks of limits
"""

import base64
import ctypes
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import numpy as np
import tvm
from browser import chromium
from playwright.sync_api import sync_playwright
from tvm import relax
from tvm.target import Target
from tvm_ffi.registry import remove_global_func

ORIGIN = "http://localhost/"  # a secure context, answered by the test itself
# Host functions check the device of their arguments: these live in this process.
TARGET = Target({"kind": "webgpu", "target_device_type": 1}, host={"kind": "llvm"})


@dataclass(frozen=True)
class Kernel:
    """One device function: its WGSL and how it is launched."""

    name: str
    wgsl: str
    launch_tags: tuple[str, ...]
    writes: tuple[bool, ...]
    pod_types: tuple[str, ...]

    @property
    def workgroup(self) -> tuple[int, int, int]:
        found = re.search(r"@workgroup_size\((\d+), (\d+), (\d+)\)", self.wgsl)
        assert found, self.wgsl
        x, y, z = map(int, found.groups())
        return x, y, z

    @property
    def shared_bytes(self) -> int:
        """Bytes of workgroup memory, all its arrays being of 32 bit elements."""
        arrays = re.findall(r"var<workgroup> \w+\s*:\s*array<(\w+), (\d+)>", self.wgsl)
        assert len(arrays) == self.wgsl.count("var<workgroup>")
        return sum({"f16": 2}.get(kind, 4) * int(count) for kind, count in arrays)


def _kernel(name: str, wgsl: str, tags: tuple[str, ...]) -> Kernel:
    bindings = re.findall(r"@group\(0\) @binding\((\d+)\) var<storage, (read|read_write)>", wgsl)
    assert [int(index) for index, _ in bindings] == list(range(len(bindings)))
    pods = re.search(r"struct PODArgs \{(.*?)\}", wgsl, re.DOTALL)
    assert pods, wgsl
    types = re.findall(r"\w+: (\w+)", pods[1])
    writes = tuple(access == "read_write" for _, access in bindings)
    return Kernel(name, wgsl, tags, writes, tuple(types[:-1]))


def _as_numpy(value: Any) -> Any:
    if isinstance(value, tvm.runtime.Tensor):
        return value.numpy()
    return None if value is None else tuple(_as_numpy(part) for part in value)


@contextmanager
def _collecting() -> Iterator[dict[str, Kernel]]:
    """Keep the device modules of a build out of the host module, and note their kernels here."""
    kernels: dict[str, Kernel] = {}
    builder = sys.modules["tvm.tirx.build"]
    compile_one = builder.codegen_build

    def collect(mod: tvm.IRModule, target: Target) -> Any:
        built = compile_one(mod, target)
        if target.kind.name != "webgpu":
            return built
        texts = dict(
            re.findall(r"// Function: (\w+)\n(.*?)(?=// Function: |\Z)", built.inspect_source(), re.DOTALL)
        )
        for variable, function in mod.functions.items():
            symbol = function.attrs.get("global_symbol", None)
            name = str(symbol or variable.name_hint)
            tags = tuple(str(tag) for tag in function.attrs["tirx.kernel_launch_params"])
            kernels[name] = _kernel(name, texts[name], tags)
        return None

    with mock.patch.object(builder, "codegen_build", collect):
        yield kernels


def build(function: tvm.tirx.PrimFunc) -> tuple[Any, dict[str, Kernel]]:
    """The host module of one PrimFunc, under the name "main", and its kernels."""
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with _collecting() as kernels:
        host = tvm.tirx.build(module, target=TARGET)
    return host, kernels


class WebGPU:
    """A Chromium page with a WebGPU device; a context manager."""

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=chromium.executable(), headless=True, args=list(chromium.FLAGS)
        )
        self._page = self._browser.new_page()
        self._page.route(
            f"{ORIGIN}**", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html")
        )
        self._page.goto(ORIGIN)
        self._page.add_script_tag(content=(Path(__file__).parent / "dispatch.js").read_text())
        self._built: dict[int, tuple[Any, Any, dict[str, Kernel]]] = {}
        self._memory: dict[int, Any] = {}
        self.dispatches: list[str] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def kernels(self, function: tvm.tirx.PrimFunc) -> dict[str, Kernel]:
        """The kernels of `function` by name."""
        return self._build(function)[1]

    def call(self, function: tvm.tirx.PrimFunc, *args: Any) -> None:
        """Call `function` with numpy arrays (written in place) and plain numbers."""
        host, kernels = self._build(function)
        tensors = [tvm.runtime.tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
        self._remember(tensors)
        with self._launching(kernels):
            host["main"](*tensors)
        for array, tensor in zip(args, tensors, strict=True):
            if isinstance(array, np.ndarray):
                array[...] = tensor.numpy()

    def run(self, module: tvm.IRModule, name: str, *args: Any) -> Any:
        """Call the relax function `name` of `module`; returns numpy arrays, nested as the result is.

        An array among `args` that the function mutates is mutated here too.
        """
        machine, kernels = self._machine(module)

        def remember(_function: Any, _symbol: str, before: bool, _result: Any, *operands: Any) -> int:
            if before:
                self._remember(operands)
            return 0

        machine.set_instrument(remember)
        tensors = [tvm.runtime.tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
        with self._launching(kernels):
            result = machine[name](*tensors)
        for array, tensor in zip(args, tensors, strict=True):
            if isinstance(array, np.ndarray):
                array[...] = tensor.numpy()
        return _as_numpy(result)

    def kernels_of(self, module: tvm.IRModule) -> dict[str, Kernel]:
        """The kernels of a relax module by name."""
        return self._machine(module)[1]

    def _machine(self, module: tvm.IRModule) -> tuple[relax.VirtualMachine, dict[str, Kernel]]:
        if id(module) not in self._built:
            with _collecting() as kernels:
                executable = relax.build(module, target=TARGET)
            self._built[id(module)] = module, relax.VirtualMachine(executable, tvm.cpu()), kernels
        _, machine, kernels = self._built[id(module)]
        return machine, kernels

    def _build(self, function: tvm.tirx.PrimFunc) -> tuple[Any, dict[str, Kernel]]:
        if id(function) not in self._built:
            self._built[id(function)] = function, *build(function)  # keeps it alive, so its id is its own
        _, host, kernels = self._built[id(function)]
        return host, kernels

    def _remember(self, tensors: Any) -> None:
        for tensor in tensors:
            if isinstance(tensor, tvm.runtime.Tensor):
                self._memory[tensor.data_ptr()] = tensor

    @contextmanager
    def _launching(self, kernels: dict[str, Kernel]) -> Iterator[None]:
        for kernel in kernels.values():
            tvm.register_global_func(
                kernel.name, lambda *args, k=kernel: self._launch(k, args), override=True
            )
        try:
            yield
        finally:
            self._memory.clear()
            for kernel in kernels:
                remove_global_func(kernel)

    def _launch(self, kernel: Kernel, args: tuple[Any, ...]) -> None:
        buffers = [arg.value for arg in args if isinstance(arg, ctypes.c_void_p)]
        numbers = [arg for arg in args if not isinstance(arg, ctypes.c_void_p)]
        assert len(buffers) == len(kernel.writes)
        pods, launch = numbers[: len(kernel.pod_types)], numbers[len(kernel.pod_types) :]
        sizes = dict(zip(kernel.launch_tags, launch, strict=True))
        threads = tuple(sizes.get(f"threadIdx.{axis}", 1) for axis in "xyz")
        assert threads == kernel.workgroup
        assert "blockIdx.z" not in sizes
        grid = [sizes.get("blockIdx.x", 1), sizes.get("blockIdx.y", 1), 1]
        if 0 in grid:
            return
        formats = {"i32": "i", "u32": "I", "f32": "f"}
        layout = "<" + "".join(formats[kind] for kind in kernel.pod_types) + "I"
        distinct = list(dict.fromkeys(buffers))
        self.dispatches.append(kernel.name)
        results = self._page.evaluate(
            "request => dispatch(request)",
            {
                "code": kernel.wgsl,
                "entryPoint": kernel.name,
                "grid": grid,
                "buffers": [base64.b64encode(self._bytes(pointer)).decode() for pointer in distinct],
                "bindings": [distinct.index(pointer) for pointer in buffers],
                "writes": list(kernel.writes),
                "uniform": base64.b64encode(struct.pack(layout, *pods, grid[0])).decode(),
            },
        )
        for which, text in results.items():
            target = self._bytes(distinct[int(which)])
            target[:] = base64.b64decode(text)[: len(target)]

    def _bytes(self, pointer: int) -> memoryview:
        if pointer not in self._memory:
            raise AssertionError(
                "a kernel was given memory that no argument owns: a workspace of its host part?"
            )
        tensor = self._memory[pointer]
        count = int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(str(tensor.dtype)).itemsize
        return memoryview((ctypes.c_uint8 * count).from_address(pointer)).cast("B")
