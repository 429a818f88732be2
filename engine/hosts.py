"""Processors and systems that a library's host code is made for, as `--host` names them.

Names are LLVM's triples, `ARCHITECTURE-VENDOR-SYSTEM` in any of their usual forms.
"""

import platform
import re
import sys
from dataclasses import dataclass
from typing import Literal

from engine.errors import UsageError

Architecture = Literal["x86_64", "aarch64"]
System = Literal["linux", "macos", "windows", "ios", "android"]

EXAMPLES = (
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "aarch64-linux-musl",
    "arm64-apple-macos",
    "x86_64-windows-msvc",
)

_ARCHITECTURES: dict[str, Architecture] = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}
SUFFIXES: dict[System, str] = {
    "linux": ".so",
    "android": ".so",
    "macos": ".dylib",
    "ios": ".dylib",
    "windows": ".dll",
}
# What a processor surely has. AVX2 came to x86-64 in 2013; without it a model takes several times as long.
_X86_LEVEL, _APPLE = "x86-64-v3", "apple-m1"
_TOLD = {"x86_64": "x86-64", "aarch64": "AArch64"}
_SYSTEMS_TOLD = {
    "linux": "Linux",
    "android": "Android",
    "macos": "macOS",
    "ios": "iOS",
    "windows": "Windows",
}


@dataclass(frozen=True, kw_only=True)
class Host:
    """A processor and a system. `libc` is "gnu" or "musl" on Linux, else empty."""

    architecture: Architecture
    system: System
    libc: str = ""

    def __str__(self) -> str:
        """As people say it, for example AArch64 Linux (musl)."""
        libc = " (musl)" if self.libc == "musl" else ""
        return f"{_TOLD[self.architecture]} {_SYSTEMS_TOLD[self.system]}{libc}"

    @property
    def suffix(self) -> str:
        """The suffix of a shared library there."""
        return SUFFIXES[self.system]

    @property
    def triple(self) -> str:
        """The triple as LLVM takes it."""
        apple = "arm64" if self.architecture == "aarch64" else self.architecture
        return {
            "linux": f"{self.architecture}-unknown-linux-{self.libc}",
            "android": f"{self.architecture}-linux-android",
            "macos": f"{apple}-apple-macos11.0",
            "ios": f"{apple}-apple-ios13.0",
            "windows": f"{self.architecture}-pc-windows-msvc",
        }[self.system]

    @property
    def zig(self) -> str:
        """The target as zig's C compiler takes it."""
        system = {"linux": f"linux-{self.libc}", "macos": "macos.11.0", "windows": "windows-gnu"}
        return f"{self.architecture}-{system[self.system]}"

    @property
    def cpu(self) -> str:
        """The processor, as LLVM names it, that code for any machine of this kind may ask for."""
        if self.architecture == "x86_64":
            return _X86_LEVEL
        return _APPLE if self.system == "macos" else "generic"


def here() -> Host:
    """The machine that runs this program; x86-64 where its architecture is none that is known here."""
    architecture = _ARCHITECTURES.get(platform.machine().lower(), "x86_64")
    if sys.platform == "darwin":
        return Host(architecture=architecture, system="macos")
    if sys.platform == "win32":
        return Host(architecture=architecture, system="windows")
    libc = "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
    return Host(architecture=architecture, system="linux", libc=libc)


def parse(triple: str) -> Host:
    """The host that `triple` names. Raises UsageError for one that no library can be made for."""
    first, *rest = triple.lower().split("-")
    words = "-".join(rest)
    architecture = _ARCHITECTURES.get(first)
    if architecture and "android" in words:
        return Host(architecture=architecture, system="android")
    if architecture and re.search(r"\b(darwin|macos)", words):
        return Host(architecture=architecture, system="macos")
    if architecture and re.search(r"\bios(?!.*(macabi|simulator))", words):
        return Host(architecture=architecture, system="ios")
    if architecture and "windows" in words:
        return Host(architecture=architecture, system="windows")
    if architecture and "linux" in words:
        return Host(architecture=architecture, system="linux", libc="musl" if "musl" in words else "gnu")
    raise UsageError(
        f"--host {triple} is not a processor and a system that libraries are made for.",
        why=f"It takes auto, or an LLVM triple of x86_64 or aarch64, such as {', '.join(EXAMPLES)}.",
        remedy="Leave out the host, for this machine, or name one of those.",
    )
