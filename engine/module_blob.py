"""What TVM packs into a library beside machine code: the modules behind the symbol `__tvm_ffi__library_bin`.

    <nbytes: u64> <import tree: two lists of u64> <kind: text> [<module: bytes>] ...

little endian, each text, list and module after its length as u64; the kind "_lib" stands for the library
itself and has no bytes (tvm-ffi 0.1, `src/ffi/extra/library_module.cc`). A CUDA module is <format: text>
<functions> <code: bytes>, where the format is cuda (source), ptx, cubin or fatbin; OpenCL and Metal modules
begin with their format likewise (metal is source, metallib is compiled).
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SYMBOL = "__tvm_ffi__library_bin"
LIBRARY_KIND = "_lib"
EXECUTABLE_KIND = "relax.VMExecutable"
_METADATA = b'{"model_type"'


class BlobError(ValueError):
    """The bytes are no library's modules, or damaged ones."""


@dataclass(frozen=True, kw_only=True)
class Module:
    """One packed module: its `kind`, for example cuda, and its own bytes."""

    kind: str
    data: bytes

    @property
    def format(self) -> str:
        """The form of its kernels, for kinds that begin with it."""
        return _Reader(self.data).text()


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Modules in the order of the import tree, which is kept as it came."""

    tree: bytes
    modules: tuple[Module, ...]

    def packed(self) -> bytes:
        """The bytes that `parse` reads."""
        body = bytearray(self.tree)
        for module in self.modules:
            body += _sized(module.kind.encode())
            if module.kind != LIBRARY_KIND:
                body += _sized(module.data)
        return _sized(bytes(body))


def parse(data: bytes) -> Blob:
    """Read the modules at the beginning of `data`; what follows them is ignored. Raises BlobError."""
    reader = _Reader(_Reader(data).bytes())
    start = reader.at
    count = reader.numbers() - 1
    reader.numbers()
    tree = reader.data[start : reader.at]
    modules = []
    for _ in range(count):
        kind = reader.text()
        own = b"" if kind == LIBRARY_KIND else reader.bytes()
        modules.append(Module(kind=kind, data=own))
    if reader.at != len(reader.data):
        raise BlobError("more bytes than modules")
    return Blob(tree=tree, modules=tuple(modules))


def with_code(module: Module, source: bytes, form: str, code: bytes) -> Module:
    """The CUDA `module`, whose code is the text `source`, with `code` of the format `form` in its place.

    Raises BlobError where it does not hold that text.
    """
    head, tail = _sized(module.format.encode()), _sized(source)
    if not (module.data.startswith(head) and module.data.endswith(tail)):
        raise BlobError(f"the {module.kind} module does not hold its source")
    functions = module.data[len(head) : len(module.data) - len(tail)]
    return Module(kind=module.kind, data=_sized(form.encode()) + functions + _sized(code))


def metadata(modules: Sequence[Module]) -> dict[str, Any]:
    """The JSON that the library's function `_metadata` returns, read without calling it.

    Raises BlobError where there is none.
    """
    for module in modules:
        if module.kind == EXECUTABLE_KIND and (at := module.data.find(_METADATA)) >= 0:
            text = module.data[at:].decode("utf-8", errors="replace")
            try:
                found = json.JSONDecoder().raw_decode(text)[0]
            except ValueError:
                break
            if isinstance(found, dict):
                return found
    raise BlobError("no metadata")


def names(executable: Module, function: str) -> bool:
    """Whether `executable` has `function` in its table: a name after its length, as every text there."""
    return _sized(function.encode()) in executable.data


def _sized(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


class _Reader:
    """A cursor over `data` that refuses to leave it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        if self.at + 8 > len(self.data):
            raise BlobError("cut short")
        (value,) = struct.unpack_from("<Q", self.data, self.at)
        self.at += 8
        return int(value)

    def bytes(self) -> bytes:
        size = self.number()
        if size > len(self.data) - self.at:
            raise BlobError("cut short")
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        try:
            return self.bytes().decode("ascii")
        except UnicodeDecodeError:
            raise BlobError("a name that is no text") from None

    def numbers(self) -> int:
        """Skip a list of u64; how many there were."""
        count = self.number()
        if 8 * count > len(self.data) - self.at:
            raise BlobError("cut short")
        self.at += 8 * count
        return count
