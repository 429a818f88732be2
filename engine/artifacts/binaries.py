"""The outside of a native library: its format and machine, its symbols, and TVM's modules in it.

Files are read by lief; nothing in them runs.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lief

from engine.errors import WizardError
from engine.hosts import Architecture, System
from engine.module_blob import SYMBOL

Format = Literal["ELF", "Mach-O", "PE"]

lief.logging.disable()

_ELF: dict[object, Architecture] = {lief.ELF.ARCH.X86_64: "x86_64", lief.ELF.ARCH.AARCH64: "aarch64"}
_MACHO: dict[object, Architecture] = {
    lief.MachO.Header.CPU_TYPE.X86_64: "x86_64",
    lief.MachO.Header.CPU_TYPE.ARM64: "aarch64",
}
_APPLE: dict[object, System] = {
    lief.MachO.BuildVersion.PLATFORMS.MACOS: "macos",
    lief.MachO.BuildVersion.PLATFORMS.IOS: "ios",
}
_PE: dict[object, Architecture] = {
    lief.PE.Header.MACHINE_TYPES.AMD64: "x86_64",
    lief.PE.Header.MACHINE_TYPES.ARM64: "aarch64",
}


class BinaryFormatError(WizardError):
    """The file is no library of a kind that is known here, or a damaged one."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A shared library, or an object file; `architecture` is None for one that no target has.

    `system` is None where the file does not say which of those with its format it is for.
    `defined` has the bytes of the file from each symbol on that holds TVM's modules; names are without the
    underscore that Mach-O puts before each. `wanted` are the names that others must supply.
    """

    name: str
    format: Format
    architecture: Architecture | None
    system: System | None
    shared: bool
    exported: frozenset[str]
    wanted: frozenset[str]
    defined: dict[str, bytes]


def read(path: Path) -> tuple[Binary, ...]:
    """The library at `path`: itself, or the object files of a `.tar`.

    Raises BinaryFormatError for what is none, OSError where it cannot be read.
    """
    if path.suffix != ".tar":
        return (_binary(path.read_bytes(), path.name),)
    try:
        with tarfile.open(path) as archive:
            found = tuple(_members(archive))
    except (tarfile.TarError, EOFError) as error:
        raise BinaryFormatError(f"{path.name} is no whole archive: {error}.") from None
    if not found:
        raise BinaryFormatError(f"{path.name} holds no object files.")
    return found


def _members(archive: tarfile.TarFile) -> Iterator[Binary]:
    for member in archive:
        file = archive.extractfile(member)
        if file is not None:
            data = file.read()
            if len(data) != member.size:
                raise BinaryFormatError(f"{member.name} has {len(data)} bytes of {member.size}.")
            yield _binary(data, member.name)


def _binary(data: bytes, name: str) -> Binary:
    if data.startswith(b"\x7fELF"):
        return _elf(data, name)
    if data.startswith((b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")):
        return _macho(data, name)
    if data.startswith(b"MZ"):
        return _pe(data, name)
    raise BinaryFormatError(f"{name} begins with {data[:4].hex(' ') or 'nothing'}, which no library does.")


def _parsed(binary: Any, name: str, kind: str) -> Any:
    if binary is None:
        raise BinaryFormatError(f"{name} is a damaged {kind} file.")
    return binary


def _elf(data: bytes, name: str) -> Binary:
    elf = _parsed(lief.ELF.parse(list(data)), name, "ELF")
    header = elf.header
    # Linkers write the section headers last: a file that was cut short ends before them.
    end = header.section_header_offset + header.section_header_size * header.numberof_sections
    if end > len(data):
        raise BinaryFormatError(f"{name} has {len(data)} bytes of {end}.")
    shared = header.file_type == lief.ELF.Header.FILE_TYPE.DYN
    symbols = list(elf.dynamic_symbols if shared else elf.symtab_symbols)
    local = lief.ELF.Symbol.BINDING.LOCAL
    own = {s.name: s for s in symbols if s.name and s.shndx != 0 and s.binding != local}
    wanted = {s.name for s in symbols if s.name and s.shndx == 0}
    defined = {}
    for symbol in (s for key, s in own.items() if key.endswith(SYMBOL)):
        start = elf.virtual_address_to_offset(symbol.value) if shared else 0
        if not shared:
            start = elf.sections[symbol.shndx].file_offset + symbol.value
        defined[symbol.name] = data[int(start) :]
    return Binary(
        name=name,
        format="ELF",
        architecture=_ELF.get(header.machine_type),
        system=None,
        shared=shared,
        exported=frozenset(own),
        wanted=frozenset(wanted),
        defined=defined,
    )


def _macho(data: bytes, name: str) -> Binary:
    fat = _parsed(lief.MachO.parse(list(data)), name, "Mach-O")
    macho = _parsed(fat.at(0) if fat.size == 1 else None, name, "Mach-O")
    ends = [s.file_offset + s.file_size for s in macho.segments]
    if max(ends, default=0) > len(data):
        raise BinaryFormatError(f"{name} has {len(data)} bytes of {max(ends)}.")
    shared = macho.header.file_type == lief.MachO.Header.FILE_TYPE.DYLIB
    own, wanted, defined = set(), set(), {}
    for symbol in macho.symbols:
        title = str(symbol.name).removeprefix("_")
        category = symbol.category
        if category == lief.MachO.Symbol.CATEGORY.UNDEFINED:
            wanted.add(title)
        elif category == lief.MachO.Symbol.CATEGORY.EXTERNAL:
            own.add(title)
            if title.endswith(SYMBOL):
                section = macho.section_from_virtual_address(symbol.value)
                start = section.offset + symbol.value - section.virtual_address
                defined[title] = data[start:]
    return Binary(
        name=name,
        format="Mach-O",
        architecture=_MACHO.get(macho.header.cpu_type),
        system=_APPLE.get(macho.build_version.platform) if macho.build_version else None,
        shared=shared,
        exported=frozenset(own),
        wanted=frozenset(wanted),
        defined=defined,
    )


def _pe(data: bytes, name: str) -> Binary:
    pe = _parsed(lief.PE.parse(list(data)), name, "PE")
    end = max((s.pointerto_raw_data + s.sizeof_raw_data for s in pe.sections), default=0)
    if end > len(data):
        raise BinaryFormatError(f"{name} has {len(data)} bytes of {end}.")
    export = pe.get_export()
    entries = {e.name: e.address for e in export.entries} if export else {}
    return Binary(
        name=name,
        format="PE",
        architecture=_PE.get(pe.header.machine),
        system="windows",
        shared=pe.header.has_characteristic(lief.PE.Header.CHARACTERISTICS.DLL),
        exported=frozenset(entries),
        wanted=frozenset(entry.name for library in pe.imports for entry in library.entries),
        defined={
            key: data[pe.rva_to_offset(address) :] for key, address in entries.items() if key.endswith(SYMBOL)
        },
    )
