"""The model library: that it is one, whole, and for WebAssembly asks the browser for nothing unknown."""

import struct
from pathlib import Path

from engine import wasm_lint
from engine.artifacts.report import Report
from engine.errors import WizardError

LIBRARY_PATTERN = "model-*.*"
_SUFFIXES = (".wasm", ".so", ".dylib", ".dll", ".tar")
_MAGIC = {
    ".so": (b"\x7fELF", b"\xcf\xfa\xed\xfe"),  # Metal's .so is Mach-O
    ".dylib": (b"\xcf\xfa\xed\xfe",),
    ".dll": (b"MZ",),
}


def verify(output: Path, library_name: str | None, report: Report) -> None:
    """Check `library_name`, or each library that is there."""
    found = [path for path in sorted(output.glob(LIBRARY_PATTERN)) if path.suffix in _SUFFIXES]
    for path in [output / library_name] if library_name else found:
        with report.guarding("library"):
            report.add("library", _problems(path), f"{path.name}, {path.stat().st_size} bytes")


def _problems(path: Path) -> list[str]:
    if path.suffix == ".wasm":
        try:
            return [f"{path.name}: {finding}" for finding in wasm_lint.lint(path)]
        except WizardError as error:
            return [error.what]
    data = path.read_bytes()
    magic = _MAGIC.get(path.suffix)
    if magic and not data.startswith(magic):
        return [f"{path.name} begins with {data[:4].hex(' ')}, which no {path.suffix} file does"]
    if data.startswith(b"\x7fELF") and _elf_size(data) > len(data):
        return [f"{path.name} has {len(data)} bytes of {_elf_size(data)}"]
    return []


def _elf_size(data: bytes) -> int:
    """Where the section headers end, which linkers write last (64 bit, little endian)."""
    if len(data) < 64:
        return 64
    (offset,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    return int(offset + size * count)
