"""Where zig and the runtime's sources are installed, and how zig is run."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ToolchainError

OWN_SOURCES = Path(__file__).parent / "src"


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The packages that a runtime is made of: their folders, and their versions by name."""

    tvm: Path
    tvm_ffi: Path
    zig_lib: Path
    versions: dict[str, str]


def find() -> Toolchain:
    """The toolchain of this interpreter. Raises ToolchainError naming the package that is missing."""
    tvm = _package("tvm", "apache-tvm")
    tvm_ffi = _package("tvm_ffi", "apache-tvm-ffi")
    ziglang = _package("ziglang", "ziglang")
    names = ("apache-tvm", "apache-tvm-ffi", "ziglang")
    return Toolchain(
        tvm=tvm,
        tvm_ffi=tvm_ffi,
        zig_lib=ziglang / "lib",
        versions={name: importlib.metadata.version(name) for name in names},
    )


def _package(module: str, distribution: str) -> Path:
    # find_spec does not import: tvm alone would take seconds.
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ToolchainError(
            f"The Python package {distribution} is not installed.",
            why="Compiling for WebGPU needs TVM's runtime sources and zig's C++ compiler.",
            remedy=f"{Path(sys.executable).name} -m pip install --force-reinstall mlc-wizard",
        )
    return Path(spec.origin).parent


def zig(arguments: Sequence[str], *, cwd: Path, cache: Path) -> subprocess.Popen[str]:
    """Start `zig ARGUMENTS` in `cwd`, its own cache in `cache`, stdout and stderr in one pipe.

    Raises ToolchainError where there is no zig.
    """
    folder = _package("ziglang", "ziglang")
    # The program itself and not `python -m ziglang`, which on Windows is a parent that leaves it behind
    # when killed.
    program = shutil.which("zig", path=str(folder))
    if program is None:
        raise ToolchainError(
            f"The zig compiler is not in {folder}.",
            why="The ziglang package is damaged, or a virus scanner took the program away.",
            remedy=f"{Path(sys.executable).name} -m pip install --force-reinstall ziglang",
        )
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
    }
    return subprocess.Popen(
        [program, *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
