"""Is a library what its device asks for? Read from its binary, without running it.

What MLC's engine looks for is in docs/native-contract.md. Each of these checks is one that a library of the
wrong machine, the wrong prefix or without its kernels would fail only where it is loaded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import hosts, module_blob
from engine.artifacts import binaries, native_contract
from engine.artifacts.binaries import Binary, BinaryFormatError
from engine.catalog import Target
from engine.hosts import Architecture, Host, System
from engine.module_blob import EXECUTABLE_KIND, LIBRARY_KIND, SYMBOL, BlobError, Module

_FORMATS: Mapping[System, str] = {
    "linux": "ELF",
    "android": "ELF",
    "macos": "Mach-O",
    "ios": "Mach-O",
    "windows": "PE",
}
COMPILED = {"cuda": ("ptx", "cubin", "fatbin"), "metal": ("metal", "metallib")}
"""The forms that kernels of a kind may have in a library; those of others are source always."""
_FORMS = {"metal": "source", "metallib": "metallib", "ptx": "PTX", "cl": "source"}
_REGISTER = "TVMFFIEnvModRegisterSystemLibSymbol"
# What the process that loads a library has: tvm-ffi, and the C library with its mathematics.
_SUPPLIED = re.compile(
    r"TVMFFI\w+|mem(cpy|move|set|cmp)|bzero|dyld_stub_binder|__chkstk|_GLOBAL_OFFSET_TABLE_|"
    r"(a?(sin|cos|tan)h?|atan2|ceil|floor|round|trunc|rint|nearbyint|exp|exp2|exp10|expm1|log|log2|log10|log1p|"
    r"pow|sqrt|hypot|erf|fabs|fma|fmax|fmin|fmod|copysign|ldexp)f?"
)
# Apple's systems have the compiler's own helpers in libSystem.
_SUPPLIED_BY_APPLE = re.compile(r"__(extendhfsf2|truncsfhf2|gnu_h2f_ieee|gnu_f2h_ieee|sincosf?_stret)")


@dataclass(frozen=True, kw_only=True)
class NativeLibrary:
    """What a library holds; `prefixes` are those of the modules found in it, of which there must be one."""

    suffix: str
    binaries: tuple[Binary, ...]
    prefixes: tuple[str, ...]
    modules: tuple[Module, ...]
    metadata: dict[str, Any]

    def __str__(self) -> str:
        """In one line, as receipts have it."""
        first = self.binaries[0]
        form = "shared library" if first.shared else f"{len(self.binaries)} objects"
        parts = [f"{first.format} {hosts.TOLD[first.architecture]} {form}"]
        parts += [
            f"{m.kind} kernels as {_FORMS.get(m.format, m.format)}{_least(m)}"
            for m in self.modules
            if m.kind not in (LIBRARY_KIND, EXECUTABLE_KIND)
        ]
        if not first.shared:
            parts += [f"symbols of prefix {prefix!r}" for prefix in self.prefixes]
        if self.metadata:
            parts.append(f"metadata of {self.metadata.get('model_type')} {self.metadata.get('quantization')}")
        return ", ".join(parts)

    @property
    def architecture(self) -> Architecture | None:
        """That of its code."""
        return self.binaries[0].architecture


def _least(module: Module) -> str:
    """What a GPU needs at least for PTX, which says so itself."""
    match = re.search(rb"^\.target (\w+)", module.data, re.MULTILINE) if module.format == "ptx" else None
    return f" for {match[1].decode()} and later" if match else ""


def read(path: Path) -> NativeLibrary:
    """The library at `path`.

    Raises BinaryFormatError where it is none, OSError where it cannot be read.
    """
    found = binaries.read(path)
    blobs = {name: data for binary in found for name, data in binary.defined.items()}
    modules: tuple[Module, ...] = ()
    metadata: dict[str, Any] = {}
    for data in list(blobs.values())[:1]:
        try:
            modules = module_blob.parse(data).modules
            metadata = module_blob.metadata(modules)
        except BlobError as error:
            if not modules:
                raise BinaryFormatError(f"{path.name}: its modules cannot be read: {error}.") from None
    prefixes = tuple(sorted(name.removesuffix(SYMBOL) for name in blobs))
    return NativeLibrary(
        suffix=path.suffix, binaries=found, prefixes=prefixes, modules=modules, metadata=metadata
    )


def problems(
    library: NativeLibrary, target: Target, *, host: Host | None = None, prefix: str | None = None
) -> list[str]:
    """Why `library` is none for `target`; empty where nothing stands against it.

    `host` is where its code is to run, None for any that the target has; `prefix` that of its symbols,
    None for any.
    """
    out = _machine_problems(library, target, host)
    out += _symbol_problems(library, prefix)
    kinds = [m for m in library.modules if m.kind not in (LIBRARY_KIND, EXECUTABLE_KIND)]
    if [m.kind for m in kinds] != ([target.kernels] if target.kernels else []):
        found = ", ".join(m.kind for m in kinds) or "none"
        out.append(f"its kernels are for {found}, not for {target.kernels or 'the processor'}")
    out += [
        f"its kernels for {m.kind} are {m.format}, which nothing loads"
        for m in kinds
        if m.kind in COMPILED and m.format not in COMPILED[m.kind]
    ]
    if not any(m.kind == EXECUTABLE_KIND for m in library.modules):
        out.append("it holds no model")
    elif not library.metadata:
        out.append("its metadata cannot be read")
    else:
        out += native_contract.metadata_problems(library.metadata)
    sampling = native_contract.SAMPLING if target.name in native_contract.SAMPLING_DEVICES else ()
    for name in (*native_contract.FUNCTIONS, *sampling):
        if not any(module_blob.names(m, name) for m in library.modules if m.kind == EXECUTABLE_KIND):
            out.append(f"it has no function {name}")
    return out


def _machine_problems(library: NativeLibrary, target: Target, host: Host | None) -> list[str]:
    """Where its code runs on another system or processor than `host`, or than `target` is on."""
    systems = (host.system,) if host else target.systems
    # Where the suffix tells the system apart, as for cpu; metal's tells the processor.
    systems = tuple(s for s in systems if hosts.SUFFIXES[s] == library.suffix) or systems
    formats = {_FORMATS[system] for system in systems}
    if host is not None:
        architectures: tuple[Architecture, ...] = (host.architecture,)
    elif target.name == "metal":
        architectures = ("x86_64",) if library.suffix == ".dylib" else ("aarch64",)
    else:
        architectures = ("aarch64",) if target.systems == ("ios",) else ("aarch64", "x86_64")
    out = []
    for binary in library.binaries:
        if binary.format not in formats:
            out.append(f"{binary.name} is {binary.format}, not {' or '.join(sorted(formats))}")
        elif binary.system is not None and binary.system not in systems:
            out.append(f"{binary.name} is for {hosts.SYSTEMS_TOLD[binary.system]}, not for {target.name}")
        if binary.architecture not in architectures:
            wanted = f", not {' or '.join(hosts.TOLD[a] for a in architectures)}"
            out.append(f"{binary.name} is code for {hosts.TOLD[binary.architecture]} processors{wanted}")
    if len({binary.architecture for binary in library.binaries}) > 1:
        out.append("its objects are for several processors")
    return out


def _symbol_problems(library: NativeLibrary, prefix: str | None) -> list[str]:
    if len(library.prefixes) != 1:
        return [f"it has {len(library.prefixes)} symbols that end in {SYMBOL}, which must be one"]
    [found] = library.prefixes
    out = []
    if prefix is not None and found != prefix:
        out.append(f"its symbols begin with {found!r}, not with {prefix!r}")
    shared = all(binary.shared for binary in library.binaries)
    if shared and found:
        out.append(f"its symbol is {found}{SYMBOL}, which nothing looks up in a shared library")
    wanted = frozenset().union(*(b.wanted for b in library.binaries))
    wanted -= frozenset().union(*(b.exported for b in library.binaries))
    if not shared and _REGISTER not in wanted:
        out.append("it does not register itself when an app starts")
    apple = library.binaries[0].format == "Mach-O"
    unknown = sorted(
        name
        for name in wanted
        if not (_SUPPLIED.fullmatch(name) or (apple and _SUPPLIED_BY_APPLE.fullmatch(name)))
    )
    if unknown:
        out.append(f"it needs {', '.join(unknown[:5])}, which no runtime supplies")
    return out
