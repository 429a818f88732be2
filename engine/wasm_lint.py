"""Will WebLLM take this WebAssembly library? Read from its binary, without running it.

The binary format is that of the WebAssembly core specification, chapter 5, with the tag section of the
exception handling proposal. What WebLLM supplies and asks for is that of @mlc-ai/web-llm 0.2.86.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from engine.errors import WizardError

MAGIC = b"\0asm\x01\0\0\0"
IMPORT_SECTION, MEMORY_SECTION, EXPORT_SECTION = 2, 5, 7
PAGE_BYTES = 65536
MAX_PAGES = 65536

Kind = Literal["function", "table", "memory", "global", "tag"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""By their number in the binary."""

# A module that imports anything else cannot be instantiated: the page has nothing to give it.
SUPPLIED_IMPORTS = frozenset(
    {
        ("env", "TVMFFIWasmFunctionDeleter"),
        ("env", "TVMFFIWasmSafeCall"),
        ("env", "__console_log"),
        ("env", "__cxa_thread_atexit"),
        ("env", "emscripten_notify_memory_growth"),
        ("wasi_snapshot_preview1", "clock_time_get"),
        ("wasi_snapshot_preview1", "environ_get"),
        ("wasi_snapshot_preview1", "environ_sizes_get"),
        ("wasi_snapshot_preview1", "fd_close"),
        ("wasi_snapshot_preview1", "fd_read"),
        ("wasi_snapshot_preview1", "fd_seek"),
        ("wasi_snapshot_preview1", "fd_write"),
        ("wasi_snapshot_preview1", "proc_exit"),
    }
)
CALLED_EXPORTS = frozenset(
    {
        "TVMFFIAnyViewToOwnedAny",
        "TVMFFIDataTypeToString",
        "TVMFFIErrorSetRaisedFromCStr",
        "TVMFFIFunctionCall",
        "TVMFFIFunctionGetGlobal",
        "TVMFFIFunctionSetGlobal",
        "TVMFFIGetTypeInfo",
        "TVMFFIObjectDecRef",
        "TVMFFIObjectIncRef",
        "TVMFFITypeKeyToIndex",
        "TVMFFIWasmFunctionCreate",
        "TVMFFIWasmGetLastError",
        "TVMWasmAllocSpace",
        "TVMWasmFreeSpace",
    }
)
INITIALIZER = "_initialize"
MEMORY = "memory"

# WGSL is stored as text: a shader that needs an extension says so in its first line.
WGSL_FEATURES = {b"enable f16;": "shader-f16", b"enable subgroups;": "subgroups"}


class WasmFormatError(WizardError):
    """The file is not a WebAssembly module, or a damaged one."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason why WebLLM would refuse the library: a `rule`, and the `detail` with names."""

    rule: Literal["import", "export", "memory"]
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A memory's size in pages of 64 KiB; `maximum` is None where it may grow without a declared end."""

    minimum: int
    maximum: int | None

    @property
    def growable(self) -> bool:
        """Whether the module may enlarge it."""
        return self.maximum is None or self.maximum > self.minimum


@dataclass(kw_only=True)
class Module:
    """The outside of a module: imports as (module, name, kind), exports by name, memories of its own."""

    nbytes: int
    imports: list[tuple[str, str, Kind]] = field(default_factory=list)
    exports: dict[str, Kind] = field(default_factory=dict)
    memories: list[Memory] = field(default_factory=list)
    features: list[str] = field(default_factory=list)


def lint(path: Path) -> list[Finding]:
    """What would keep WebLLM from loading the library at `path`; empty where nothing would.

    Raises WasmFormatError where it is no WebAssembly module, OSError where it cannot be read.
    """
    module = parse(path.read_bytes(), path.name)
    unknown = [
        Finding(rule="import", detail=f"it imports the {kind} {space}.{name}, which WebLLM does not supply")
        for space, name, kind in module.imports
        if (space, name) not in SUPPLIED_IMPORTS or kind != "function"
    ]
    absent = [
        Finding(rule="export", detail=f"it does not export the function {name}")
        for name in sorted({*CALLED_EXPORTS, INITIALIZER})
        if module.exports.get(name) != "function"
    ]
    return [*unknown, *absent, *_memory_findings(module)]


def required_features(path: Path) -> list[str]:
    """The WebGPU features that the library's shaders enable, sorted: `required_features` of a model record.

    Raises WasmFormatError where it is no WebAssembly module, OSError where it cannot be read.
    """
    return parse(path.read_bytes(), path.name).features


def parse(data: bytes, name: str = "the file") -> Module:
    """Read the outside of a module from its bytes; `name` tells the file in an error.

    Raises WasmFormatError, and nothing else, for bytes that are not a whole well-formed module.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise WasmFormatError(
            f"{name} is not a WebAssembly module.",
            why=f"It has {len(data)} bytes and does not begin with the mark of WebAssembly version 1.",
            remedy="Compile the model again.",
        )
    module = Module(nbytes=len(data))
    reader = _Reader(data, len(MAGIC), len(data), name)
    while not reader.at_end:
        number = reader.byte()
        section = reader.slice(reader.number())
        if number == IMPORT_SECTION:
            _read_imports(section, module)
        elif number == MEMORY_SECTION:
            module.memories += [_read_memory(section) for _ in section.items()]
        elif number == EXPORT_SECTION:
            _read_exports(section, module)
        else:
            continue
        section.must_be_used_up()
    module.features = sorted(feature for mark, feature in WGSL_FEATURES.items() if mark in data)
    return module


def _memory_findings(module: Module) -> list[Finding]:
    if module.exports.get(MEMORY) != "memory" or not module.memories:
        return [Finding(rule="memory", detail="it does not export a memory of its own")]
    if not module.memories[0].growable:
        size = module.memories[0].minimum * PAGE_BYTES
        return [Finding(rule="memory", detail=f"its memory of {size} bytes cannot grow")]
    return []


def _read_imports(section: "_Reader", module: Module) -> None:
    for _ in section.items():
        space, name, kind = section.text(), section.text(), section.kind()
        module.imports.append((space, name, kind))
        if kind in {"function", "tag"}:
            if kind == "tag":
                section.byte()
            section.number()
        elif kind == "table":
            section.byte()
            section.limits()
        elif kind == "memory":
            section.limits()
        else:
            section.byte()
            section.byte()


def _read_memory(section: "_Reader") -> Memory:
    minimum, maximum = section.limits()
    if minimum > MAX_PAGES or (maximum is not None and not minimum <= maximum <= MAX_PAGES):
        raise section.damaged("a memory has impossible limits")
    return Memory(minimum=minimum, maximum=maximum)


def _read_exports(section: "_Reader", module: Module) -> None:
    for _ in section.items():
        name, kind = section.text(), section.kind()
        section.number()
        module.exports[name] = kind


class _Reader:
    """A cursor over `data[start:end]` that refuses to leave it."""

    def __init__(self, data: bytes, start: int, end: int, name: str) -> None:
        self._data, self._at, self._end, self._name = data, start, end, name

    @property
    def at_end(self) -> bool:
        return self._at >= self._end

    def damaged(self, what: str) -> WasmFormatError:
        return WasmFormatError(
            f"{self._name} is a damaged WebAssembly module: {what} at byte {self._at}.",
            why="The file was cut short or changed after it was written.",
            remedy="Compile the model again.",
        )

    def byte(self) -> int:
        if self.at_end:
            raise self.damaged("it ends too early")
        self._at += 1
        return self._data[self._at - 1]

    def number(self) -> int:
        """An unsigned LEB128 of at most 32 bits."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 32:
                    break
                return value
        raise self.damaged("a number has more than 32 bits")

    def items(self) -> range:
        """One step for each item of a vector; every item takes at least one byte."""
        count = self.number()
        if count > self._end - self._at:
            raise self.damaged(f"a list of {count} items does not fit")
        return range(count)

    def slice(self, size: int) -> "_Reader":
        if size > self._end - self._at:
            raise self.damaged(f"a part of {size} bytes does not fit")
        start, self._at = self._at, self._at + size
        return _Reader(self._data, start, self._at, self._name)

    def text(self) -> str:
        size = self.number()
        part = self.slice(size)
        try:
            return self._data[part._at : part._end].decode()
        except UnicodeDecodeError:
            raise part.damaged("a name is not UTF-8") from None

    def kind(self) -> Kind:
        number = self.byte()
        if number >= len(KINDS):
            raise self.damaged(f"{number} is not a kind of import or export")
        return KINDS[number]

    def limits(self) -> tuple[int, int | None]:
        """Minimum and maximum; a shared or 64-bit memory is nothing that WebLLM's JavaScript can use."""
        flags = self.byte()
        if flags not in {0, 1}:
            raise self.damaged(f"{flags} is not a kind of limits that WebLLM knows")
        minimum = self.number()
        return minimum, self.number() if flags else None

    def must_be_used_up(self) -> None:
        if not self.at_end:
            raise self.damaged("a section is longer than what it holds")
