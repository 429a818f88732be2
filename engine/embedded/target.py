"""What `--device`, `--host` and `-o` come to: the library's kind, and where its host code runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.catalog import TARGETS, Target, host_of, library_suffix
from engine.errors import ToolchainError, UsageError
from engine.hosts import Host

Form = Literal["wasm", "shared", "static"]


@dataclass(frozen=True, kw_only=True)
class LibraryTarget:
    """A library to be made. `host` is None for WebAssembly.

    `native` means this very processor with all that it can, else `host` stands for any of its kind.
    """

    device: Target
    form: Form
    host: Host | None
    native: bool = False

    @property
    def system_lib(self) -> bool:
        """Whether the library registers itself when the program that it is linked into starts."""
        return self.form != "shared"


def resolve(device: str, host: str, output: Path) -> LibraryTarget:
    """The library that the flags ask for.

    Raises UsageError for a device or a host that no library is made for, and for a suffix of `output` that
    is not the target's, ToolchainError for a device that this TVM has no code generator for.
    """
    target = TARGETS.get(device)
    if target is None:
        raise UsageError(
            f"--device {device} is not a target.",
            why=f"Targets are {', '.join(TARGETS)}.",
            remedy="Choose one of those.",
        )
    if target.lacks_codegen:
        raise ToolchainError(
            f"The embedded compiler makes no libraries for {device}.",
            why=target.lacks_codegen,
            remedy="Compile with mlc_llm, or export weights and configuration only.",
            fix="compile",
        )
    if not target.systems:
        if host != "auto":
            raise UsageError(
                f"--host {host} is not supported for {device}: only auto is.", remedy="Leave out --host."
            )
        _check_suffix(output, (target.suffixes[0],), device)
        return LibraryTarget(device=target, form="wasm", host=None)
    where = host_of(target, host)
    usual = library_suffix(target, host)
    # An app's archive can be a shared library instead, where the official compiler allows both.
    allowed = target.suffixes if target.static else (usual,)
    _check_suffix(output, allowed, device if host == "auto" else f"{device} on {where}")
    return LibraryTarget(
        device=target,
        form="static" if output.suffix == ".tar" else "shared",
        host=where,
        native=host == "auto" and device == "cpu",
    )


def _check_suffix(output: Path, allowed: tuple[str, ...], what: str) -> None:
    if output.suffix not in allowed:
        raise UsageError(
            f"A library for {what} ends in {' or '.join(allowed)}, "
            f"not in {output.suffix or 'nothing'}: {output}",
            remedy=f"Write -o {output.with_suffix(allowed[0])}",
        )
