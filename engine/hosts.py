"""Processors and systems that a library's host code is made for, as `--host` names them.

Names are LLVM's triples, `ARCHITECTURE-VENDOR-SYSTEM` in any of their usual forms, after which a
processor may be named as LLVM's programs have it: `x86_64-linux-gnu -mcpu=x86-64-v4`.
"""

import platform
import re
import sys
from collections.abc import Mapping
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
_NAMED = re.compile(r"(\w+)-(\S+?)(?:\s+-mcpu=(\S+))?")
TOLD: Mapping[Architecture | None, str] = {
    "x86_64": "x86-64",
    "aarch64": "AArch64",
    None: "another architecture's",
}
SYSTEMS_TOLD = {
    "linux": "Linux",
    "android": "Android",
    "macos": "macOS",
    "ios": "iOS",
    "windows": "Windows",
}


@dataclass(frozen=True, kw_only=True)
class Host:
    """A processor and a system. `libc` is "gnu" or "musl" on Linux, else empty.

    `named_cpu` is the processor as LLVM names it, where one was named.
    """

    architecture: Architecture
    system: System
    libc: str = ""
    named_cpu: str = ""

    def __str__(self) -> str:
        """As people say it, for example AArch64 Linux (musl)."""
        libc = " (musl)" if self.libc == "musl" else ""
        cpu = f", {self.named_cpu}" if self.named_cpu else ""
        return f"{TOLD[self.architecture]} {SYSTEMS_TOLD[self.system]}{libc}{cpu}"

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
        """The processor, as LLVM names it, that code may ask for: the named one, or what all have."""
        if self.named_cpu:
            return self.named_cpu
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


def parse(named: str) -> Host:
    """The host that `named` names: a triple, and `-mcpu=CPU` after a space where a processor is meant.

    Raises UsageError for one that no library can be made for; CPU itself is for LLVM to know.
    """
    match = _NAMED.fullmatch(named.strip())
    architecture = _ARCHITECTURES.get(match[1].lower()) if match else None
    system, libc = _system(match[2].lower()) if match else (None, "")
    # A phone is AArch64; x86_64-apple-ios is what runs in a simulator.
    if match and architecture and system and (architecture, system) != ("x86_64", "ios"):
        return Host(architecture=architecture, system=system, libc=libc, named_cpu=match[3] or "")
    raise UsageError(
        f"--host {named} is not a processor and a system that libraries are made for.",
        why=f"It takes auto, or an LLVM triple of x86_64 or aarch64, such as {', '.join(EXAMPLES)}; "
        "after it, where a processor is meant, a space and -mcpu=CPU.",
        remedy="Leave out the host, for this machine, or name one of those.",
    )


def _system(words: str) -> tuple[System | None, str]:
    """The system that a triple without its architecture names, and its C library."""
    if "android" in words:
        return "android", ""
    if re.search(r"\b(darwin|macos)", words):
        return "macos", ""
    if re.search(r"\bios(?!.*(macabi|simulator))", words):
        return "ios", ""
    if "windows" in words:
        return "windows", ""
    if "linux" in words:
        return "linux", "musl" if "musl" in words else "gnu"
    return None, ""
