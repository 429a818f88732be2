"""Libraries for every device but the browser, each compiled once in a test process from a small model."""

import atexit
import shutil
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from exports import weights

from engine.embedded.compile import compile_library

MODEL, QUANTIZATION = "llama", "q4f16_1"
PREFIXES = {"android": f"{MODEL}_{QUANTIZATION}_", "iphone": "app_"}

MADE = {
    "x86-64 Linux": ("cpu", "x86_64-linux-gnu", ".so"),
    "AArch64 Linux": ("cpu", "aarch64-linux-musl", ".so"),
    "macOS": ("cpu", "arm64-apple-macos", ".dylib"),
    "Windows": ("cpu", "x86_64-windows-msvc", ".dll"),
    "cuda": ("cuda", "x86_64-linux-gnu", ".so"),
    "metal": ("metal", "auto", ".so"),
    "iphone": ("iphone", "auto", ".tar"),
    "android": ("android", "auto", ".tar"),
}
"""Device, host and suffix of what is compiled; CUDA kernels by NVRTC, which the tests have installed."""
if sys.platform == "darwin":  # for which NVIDIA has none
    del MADE["cuda"]

_XCRUN = """
import sys
from pathlib import Path
sdk, tool, *rest = sys.argv[2:]
assert sys.argv[1] == "-sdk" and sdk == "iphoneos", sys.argv
if "--version" in rest:
    print("Apple metal version 32023")
elif tool == "metal":
    assert "-std=ios-metal2.3" in rest and "kernel void" in Path(rest[rest.index("-c") + 1]).read_text()
    Path(rest[rest.index("-o") + 1]).write_bytes(b"AIR")
else:
    assert Path(rest[0]).read_bytes() == b"AIR"
    Path(rest[2]).write_bytes(b"MTLB of a kernel")
"""


@cache
def library(name: str) -> Path:
    """The library called `name` in MADE, beside the weights and the configuration that it is for.

    In the place of Xcode, which compiles the kernels for iphone, is a program that looks at its arguments.
    """
    device, host, suffix = MADE[name]
    folder = Path(tempfile.mkdtemp(prefix=f"mlc-wizard-{device}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    export = folder / "export"
    shutil.copytree(weights(MODEL, QUANTIZATION), export, ignore=shutil.ignore_patterns("model-*"))
    output = export / f"model-{device}{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        (folder / "bin").mkdir()
        patch.setenv("PATH", str(folder / "bin"))
        if device == "iphone":
            program(folder / "bin", "xcrun", _XCRUN)
        prefix = "app_" if device == "iphone" else "auto"
        compile_library(export, output, device=device, host=host, prefix=prefix, cuda_arch="compute_75")
    return output


def program(folder: Path, name: str, text: str) -> Path:
    """A program called `name` in `folder` that runs the Python `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"{name}.py"
    script.write_text(text, encoding="utf-8")
    if sys.platform == "win32":
        path = folder / f"{name}.bat"
        path.write_text(f'@"{sys.executable}" "{script}" %*\n', encoding="utf-8")
    else:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n', encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
