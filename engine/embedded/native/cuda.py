"""CUDA kernels of a library: compiled here, so that whoever loads it needs a driver and no compiler.

TVM packs their source where its own CUDA runtime is not loaded, which would leave the compiling to Python
code beside the engine. So the source is compiled and packed in its place (`engine/module_blob.py`).
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tvm

from engine import module_blob
from engine.cuda import INSTALL_NVRTC, Compiler, check_architectures
from engine.embedded.native import shared, tool
from engine.errors import StageError, ToolchainError
from engine.hosts import Host
from engine.module_blob import SYMBOL

_LAST_LINES = 12


def packer(host: Host, compiler: Compiler, architectures: Sequence[str]) -> Callable[..., str]:
    """A function that packs a library's modules with compiled kernels, as `export_library(fpack_imports=)`.

    It raises StageError where the kernels do not compile.
    """

    def pack(library: Any, _system_lib: bool, _prefix: str, folder: str) -> str:
        packed = tvm.get_global_func("runtime.ModulePackImportsToTensor")(library).numpy().tobytes()
        [source] = [m.inspect_source() for m in _all_imports(library) if m.kind == "cuda"]
        form, code = compile_source(source, compiler, architectures)
        blob = module_blob.parse(packed)
        modules = tuple(
            module_blob.with_code(m, source.encode(), form, code) if m.kind == "cuda" else m
            for m in blob.modules
        )
        return _object_of(module_blob.Blob(tree=blob.tree, modules=modules).packed(), host, Path(folder))

    return pack


def compile_source(source: str, compiler: Compiler, architectures: Sequence[str]) -> tuple[str, bytes]:
    """The form, ptx, cubin or fatbin, and the code of CUDA `source` for `architectures`.

    Raises UsageError for several architectures without nvcc, ToolchainError where NVRTC cannot be loaded,
    StageError for what does not compile.
    """
    if compiler.kind == "nvcc":
        return _nvcc(source, compiler, architectures)
    check_architectures(architectures, compiler)
    return _nvrtc(source, architectures[0])


def _nvcc(source: str, compiler: Compiler, architectures: Sequence[str]) -> tuple[str, bytes]:
    single = architectures[0] if len(architectures) == 1 else ""
    form = "fatbin" if not single else "ptx" if single.startswith("compute_") else "cubin"
    flags = [f"-gencode=arch={name.replace('sm_', 'compute_')},code={name}" for name in architectures]
    with tempfile.TemporaryDirectory(prefix="mlc-wizard-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "kernels.cu").write_text(source, encoding="utf-8")
        chosen = [f"-arch={single}"] if form == "ptx" else flags
        command = [
            str(compiler.path),
            f"--{form}",
            *chosen,
            "-std=c++17",
            "-o",
            f"kernels.{form}",
            "kernels.cu",
        ]
        done = tool.run(command, folder)
        if done.returncode != 0:
            raise _failed(f"nvcc, exit code {done.returncode}", done.stdout)
        code = (folder / f"kernels.{form}").read_bytes()
    # The driver reads PTX as a text that ends in a zero.
    return form, code + b"\0" if form == "ptx" else code


def _nvrtc(source: str, architecture: str) -> tuple[str, bytes]:
    try:
        from cuda import pathfinder
        from cuda.bindings import nvrtc

        headers = [pathfinder.find_nvidia_header_directory(name) for name in ("cudart", "cccl")]
        status, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    except (ImportError, RuntimeError, OSError) as error:
        raise _incomplete(str(error).splitlines()[0]) from None
    if None in headers:
        raise _incomplete("The headers of the CUDA runtime are missing.")
    options = [f"--gpu-architecture={architecture}", "--std=c++17", *(f"-I{folder}" for folder in headers)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = bytearray(nvrtc.nvrtcGetProgramLogSize(program)[1])
        nvrtc.nvrtcGetProgramLog(program, log)
        raise _failed(f"NVRTC, {status.name}", log.rstrip(b"\0").decode(errors="replace"))
    ptx = architecture.startswith("compute_")
    size, get = (
        (nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX) if ptx else (nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
    )
    code = bytearray(size(program)[1])
    get(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return "ptx" if ptx else "cubin", bytes(code)


def _failed(how: str, said: str) -> StageError:
    lines = said.strip().splitlines()
    telling = [line for line in lines if re.search(r"error|fatal|unsupported", line, re.IGNORECASE)]
    return StageError(
        f"The CUDA kernels did not compile ({how}).",
        why="\n".join((telling or lines)[:_LAST_LINES]),
        remedy="If it names an architecture, choose another with --cuda-arch (target.cuda_arch). If it names "
        f"a C++ compiler or a header, NVRTC needs neither: take nvcc off PATH, and run: {INSTALL_NVRTC}",
    )


def _incomplete(why: str) -> ToolchainError:
    return ToolchainError(
        "NVRTC, NVIDIA's compiler for CUDA kernels, cannot be used.", why=why, remedy=f"Run: {INSTALL_NVRTC}"
    )


def _all_imports(module: Any) -> list[Any]:
    return [found for child in module.imports for found in (child, *_all_imports(child))]


def _object_of(data: bytes, host: Host, folder: Path) -> str:
    """An object file that has `data` behind SYMBOL."""
    (folder / "modules.bin").write_bytes(data)
    windows = host.system == "windows"
    section = '.section .rdata,"dr"' if windows else '.section .rodata,"a"'
    exported = f'.section .drectve,"yn"\n.ascii " /EXPORT:{SYMBOL},DATA"\n' if windows else ""
    text = f'{exported}{section}\n.globl {SYMBOL}\n.p2align 4\n{SYMBOL}:\n.incbin "modules.bin"\n'
    (folder / "modules.s").write_text(text, encoding="utf-8")
    shared.zig(("cc", "-target", host.zig, "-c", "modules.s", "-o", "modules.o"), folder)
    return str(folder / "modules.o")
