"""NVIDIA's compilers and GPUs, as far as this machine has them; found without loading any.

CUDA kernels become machine code or PTX by nvcc, of a CUDA toolkit, or by NVRTC, which is on PyPI; neither
needs a GPU.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from engine.errors import ToolchainError, UsageError, WizardError

PORTABLE = "compute_75"
"""Where no GPU is here to compile for: PTX, which the driver of any GPU since Turing (2018) translates."""
NVRTC_WHEELS = ("cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
NVRTC_VERSION = "13.0.*"
"""The drivers of all of CUDA 13 take its PTX."""
INSTALL_NVRTC = f"{Path(sys.executable).name} -m pip install " + " ".join(
    f'"{wheel}=={NVRTC_VERSION}"' for wheel in NVRTC_WHEELS
)

_ARCHITECTURE = re.compile(r"(?:(sm|compute)_)?(\d{2,3})([af]?)")
_TIME_LIMIT = 10


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """`nvcc`, a program at `path`, or `nvrtc`, a library that the wheels have."""

    kind: Literal["nvcc", "nvrtc"]
    path: Path | None = None

    def __str__(self) -> str:
        """As people know it."""
        return f"nvcc ({self.path})" if self.path else "NVRTC"


@dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """How kernels are compiled: by what, and for which architectures, as NVIDIA's compilers spell them."""

    compiler: Compiler
    architectures: tuple[str, ...]


def compiler() -> Compiler:
    """The compiler that is here: nvcc on PATH or of CUDA_PATH, else NVRTC. Raises ToolchainError."""
    places = [os.environ.get("PATH", os.defpath)]
    places += [
        str(Path(root) / "bin") for name in ("CUDA_PATH", "CUDA_HOME") if (root := os.environ.get(name))
    ]
    found = shutil.which("nvcc", path=os.pathsep.join(places))
    if found:
        return Compiler(kind="nvcc", path=Path(found))
    if importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None:
        return Compiler(kind="nvrtc")
    raise ToolchainError(
        "Compiling for cuda needs NVIDIA's compiler: nvcc or NVRTC, and neither is here.",
        why="TVM writes the kernels as CUDA source, which must become code for the GPU. That takes no GPU.",
        remedy=f"Run: {INSTALL_NVRTC}\n(or install the CUDA toolkit, and put its nvcc on PATH), "
        "or make weights and configuration only.",
        fix="compile",
    )


def architectures(text: str) -> tuple[str, ...]:
    """The architectures that `--cuda-arch` names, as NVIDIA's compilers spell them; "auto" asks this machine.

    sm_89, or 89, is code for GPUs of compute capability 8.9 and later ones of the same major number;
    compute_89 is PTX, for all later ones. "auto" is that of the first GPU here, else PORTABLE. Raises
    UsageError.
    """
    if text == "auto":
        return (device_architecture() or PORTABLE,)
    out = []
    for part in text.split(","):
        match = _ARCHITECTURE.fullmatch(part.strip())
        if match is None:
            raise UsageError(
                f"--cuda-arch {text} names no architecture of NVIDIA's GPUs.",
                why="It takes auto, sm_89 for machine code, compute_75 for PTX, or several after commas.",
                remedy="Leave it out, or write for example --cuda-arch sm_89",
            )
        out.append(f"{match[1] or 'sm'}_{match[2]}{match[3]}")
    return tuple(dict.fromkeys(out))


def check_architectures(architectures: Sequence[str], compiler: Compiler) -> None:
    """Raise UsageError for more than one of `architectures` where `compiler` takes one."""
    if compiler.kind == "nvrtc" and len(architectures) > 1:
        raise UsageError(
            f"--cuda-arch {','.join(architectures)}: NVRTC compiles for one architecture at a time.",
            remedy=f"Name one, as {PORTABLE} for every GPU since 2018, or install the CUDA toolkit, whose "
            "nvcc does several.",
        )


def identity(arch: str, *, nvrtc: bool = True) -> dict[str, str]:
    """What compiled kernels depend on beside their source: the compiler and its version, the architectures.

    `arch` is as for `architectures`; without `nvrtc` only nvcc counts. Where there is no compiler, that is
    told: whoever needs one says what is missing.
    """
    try:
        found = compiler()
        named = ",".join(architectures(arch))
    except WizardError as error:
        return {"cuda": error.what}
    told = {"cuda architectures": named}
    if found.path is not None:
        return {"nvcc": _version(found.path), **told}
    return {**(_nvrtc_versions() if nvrtc else {"nvcc": "none"}), **told}


def _nvrtc_versions() -> dict[str, str]:
    """The versions of the packages that NVRTC and the headers for it come in."""
    found = {}
    for wheel in NVRTC_WHEELS:
        try:
            found[wheel] = metadata.version(wheel)
        except metadata.PackageNotFoundError:  # as where conda has installed it
            found[wheel] = "not a package"
    return found


def _version(nvcc: Path) -> str:
    """What `nvcc --version` says of release and build."""
    try:
        told = subprocess.run(
            [nvcc, "--version"], capture_output=True, text=True, timeout=_TIME_LIMIT, check=True,
            stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"{nvcc}, which does not say its version ({type(error).__name__})"
    return " ".join(told.split())


def device_architecture() -> str | None:
    """sm_XY of the first NVIDIA GPU of this machine, as its driver tells; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        told = subprocess.run(
            [program, "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"(\d+)\.(\d)\s*$", told.partition("\n")[0])
    return f"sm_{match[1]}{match[2]}" if match else None
