"""What the runtime is compiled of: the translation units, their sources and their flags."""

from dataclasses import dataclass
from pathlib import Path

from engine.embedded.wasm.toolchain import OWN_SOURCES, Toolchain

TARGET = ("-target", "wasm32-wasi", "-Os", "-g0", "-w", "-fno-sanitize=undefined", "-fno-stack-protector")
# What zig links to build its C and C++ library, once; that part has no exceptions of its own.
LIBRARY_FLAGS = (*TARGET, "-s", "-mexec-model=reactor")
# Exceptions of the WebAssembly standard, so that an error inside the runtime reaches the page as a
# message instead of a trap. The driver turns the feature off again unless it is named as well.
EXCEPTIONS = ("-fwasm-exceptions", "-mexception-handling")

# Several sources a unit: they share most headers and templates, so each alone takes twice as long in
# all. The slowest come first, for an even end on several cores.
TVM_UNITS = {
    "KV cache": ("vm/paged_kv_cache.cc", "vm/attn_backend.cc", "vm/kv_state.cc"),
    "virtual machine": ("vm/builtin.cc", "vm/bytecode.cc", "vm/executable.cc", "vm/vm.cc"),
    "parameters and sampling": ("vm/lm_support.cc", "vm/rnn_state.cc", "vm/tensor_cache_support.cc"),
    "devices and memory": (
        "cpu_device_api.cc",
        "device_api.cc",
        "logging.cc",
        "tensor.cc",
        "workspace_pool.cc",
        "memory/memory_manager.cc",
    ),
}
FFI_UNITS = {
    "objects": (
        "container.cc",
        "custom_allocator.cc",
        "dtype.cc",
        "error.cc",
        "function.cc",
        "init_once.cc",
        "object.cc",
        "tensor.cc",
    ),
    "modules and JSON": (
        "extra/env_c_api.cc",
        "extra/env_context.cc",
        "extra/json_parser.cc",
        "extra/json_writer.cc",
        "extra/library_module.cc",
        "extra/library_module_system_lib.cc",
        "extra/module.cc",
    ),
}
# zig builds its C++ library without exceptions, but ships the sources of that part as well.
EXCEPTION_SOURCES = (
    "cxa_exception.cpp",
    "cxa_exception_storage.cpp",
    "cxa_personality.cpp",
    "fallback_malloc.cpp",
)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One translation unit: `sources` are included in order and compiled with `flags` by zig `driver`."""

    name: str
    sources: tuple[Path, ...]
    flags: tuple[str, ...]
    driver: str = "c++"

    @property
    def suffix(self) -> str:
        """The file name suffix of the unit's language."""
        return ".cc" if self.driver == "c++" else ".c"


def runtime_units(toolchain: Toolchain, tree: Path) -> tuple[Unit, ...]:
    """The units of the runtime, to be compiled with our own sources laid out in `tree`."""
    tvm = [
        Unit(
            name=name,
            sources=tuple(toolchain.tvm / "src" / "runtime" / source for source in sources),
            flags=_tvm_flags(toolchain, tree),
        )
        for name, sources in TVM_UNITS.items()
    ]
    ffi = [
        Unit(
            name=name,
            sources=tuple(toolchain.tvm_ffi / "src" / "ffi" / source for source in sources),
            flags=_tvm_flags(toolchain, tree),
        )
        for name, sources in FFI_UNITS.items()
    ]
    web = Unit(
        name="WebGPU and JavaScript",
        sources=(toolchain.tvm / "web" / "emcc" / "webgpu_runtime.cc", tree / "tvmjs.cc", tree / "wasi.cc"),
        flags=_tvm_flags(toolchain, tree),
    )
    exceptions = Unit(
        name="exceptions",
        sources=tuple(toolchain.zig_lib / "libcxxabi" / "src" / source for source in EXCEPTION_SOURCES),
        flags=(*_abi_flags(toolchain), "-std=c++23"),
    )
    unwinding = Unit(
        name="unwinding",
        sources=(toolchain.zig_lib / "libunwind" / "src" / "Unwind-wasm.c",),
        flags=_abi_flags(toolchain),
        driver="cc",
    )
    # By the time each takes, longest first.
    first, second, *rest = tvm
    return (first, ffi[0], second, *rest, ffi[1], web, exceptions, unwinding)


def lay_out(tree: Path) -> None:
    """Copy our own sources to `tree`, shaped so that the relative includes of TVM's sources resolve.

    TVM's sources include missing headers as "../support/x.h" or "../../src/support/x.h". Such a path
    is also tried from each include folder, which must therefore exist at the right depth.
    """
    for source in sorted(OWN_SOURCES.rglob("*")):
        if source.is_file():
            target = tree / source.relative_to(OWN_SOURCES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    for folder in _relative_bases(tree):
        folder.mkdir(parents=True, exist_ok=True)


def _relative_bases(tree: Path) -> tuple[Path, ...]:
    return (tree / "src" / "runtime" / "vm", tree / "web" / "emcc")


def _include(*folders: Path) -> tuple[str, ...]:
    return tuple(f"-I{folder.as_posix()}" for folder in folders)


def _tvm_flags(toolchain: Toolchain, tree: Path) -> tuple[str, ...]:
    bases = _relative_bases(tree)
    return (
        *TARGET,
        *EXCEPTIONS,
        "-std=c++17",
        "-include",
        (tree / "prelude.h").as_posix(),
        *_include(tree, *bases, bases[0].parent, toolchain.tvm / "include", toolchain.tvm_ffi / "include"),
        *_include(toolchain.tvm),
        # Error messages name their source file: without the folders of this machine.
        f"-ffile-prefix-map={toolchain.tvm.as_posix()}=tvm",
        f"-ffile-prefix-map={toolchain.tvm_ffi.as_posix()}=tvm_ffi",
        f"-ffile-prefix-map={tree.as_posix()}=mlc_wizard",
    )


def _abi_flags(toolchain: Toolchain) -> tuple[str, ...]:
    abi, unwind = toolchain.zig_lib / "libcxxabi", toolchain.zig_lib / "libunwind"
    return (
        *TARGET,
        *EXCEPTIONS,
        *_include(abi / "include", toolchain.zig_lib / "libcxx" / "src", unwind / "include", unwind / "src"),
        "-D_LIBCXXABI_BUILDING_LIBRARY",
        "-D_LIBCXXABI_HAS_NO_THREADS",
        "-D_LIBUNWIND_HAS_NO_THREADS",
        "-D_LIBUNWIND_HIDE_SYMBOLS",
        "-D_LIBCPP_ENABLE_CXX17_REMOVED_UNEXPECTED_FUNCTIONS",
        "-DNDEBUG",
        f"-ffile-prefix-map={toolchain.zig_lib.as_posix()}=zig",
    )
