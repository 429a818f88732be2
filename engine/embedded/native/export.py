"""From TVM's executable to the file of a library, in the form of its target."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tvm_ffi

from engine import narrate
from engine.artifacts import native as checker
from engine.cuda import CudaOptions
from engine.embedded.native import metal, ndk, shared, static
from engine.embedded.target import LibraryTarget
from engine.errors import StageError

_METAL_HOOK = "tvm_callback_metal_compile"


@contextlib.contextmanager
def kernels_compiled(target: LibraryTarget) -> Iterator[None]:
    """While code is generated: Metal kernels are compiled where this machine can."""
    found = None
    if target.device.kernels == "metal":
        found = metal.compiler(metal.SDKS[target.device.name])
        if found is None:
            narrate.say(
                f"note: {metal.MISSING}: the kernels stay source, compiled when the library is loaded."
            )
    if found is None:
        yield
        return
    compile_kernel = found
    tvm_ffi.register_global_func(
        _METAL_HOOK, lambda source, *_: (compile_kernel(str(source)), "metallib"), override=True
    )
    try:
        yield
    finally:
        tvm_ffi.registry.remove_global_func(_METAL_HOOK)


def write(
    executable: Any, output: Path, target: LibraryTarget, prefix: str, cuda: CudaOptions | None
) -> None:
    """Write `executable` to `output` for `target`, whole or not at all, and check what was written.

    Raises StageError where linking fails or the result is not what the target asks for, ToolchainError
    where a linker is missing.
    """
    if target.form == "wasm":
        from engine.embedded.wasm import build, link

        # Minutes where this version is new to the machine; at once where it is cached.
        build.runtime(lambda done, total, name: narrate.progress(done, total, "runtime units", name))
        executable.export_library(str(output), fcompile=link.fcompile)
        return
    assert target.host is not None
    pack = None
    if cuda is not None:
        from engine.embedded.native.cuda import packer

        pack = packer(target.host, cuda.compiler, cuda.architectures)
    if target.form == "static":
        link_objects: Any = static.pack
    else:
        link_objects = ndk.link if target.host.system == "android" else shared.linker(target.host)
    # In a folder of its own, as linkers write the name of their output into it.
    with tempfile.TemporaryDirectory(prefix=".unchecked-", dir=output.parent) as folder:
        linked = Path(folder) / output.name
        executable.mod.export_library(str(linked), fcompile=link_objects, fpack_imports=pack)
        found = checker.read(linked)
        if problems := checker.problems(found, target.device, host=target.host, prefix=prefix):
            raise StageError(
                "The linked library is not what it should be: " + "; ".join(problems),
                remedy="This is a fault of mlc-wizard: please report it with this message.",
            )
        linked.replace(output)
    narrate.say(f"{output.name}: {found}")
