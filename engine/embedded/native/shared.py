"""Shared libraries for Linux, macOS and Windows, linked by zig on any of them: nothing need be installed."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.embedded.wasm import toolchain
from engine.errors import StageError
from engine.hosts import Host

Link = Callable[..., None]
"""As relax's `export_library(output, fcompile=link)` calls it: output, objects, options."""

# Windows resolves no symbol at load time, so each must be said to come from a library. These are all that
# LLVM's code for kernels may call; a name that stays unused costs nothing.
_MATHEMATICS = (
    "acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh erf exp exp2 expm1 floor fma fmax fmin "
    "fmod hypot log log10 log1p log2 nearbyint pow rint round sin sinh sqrt tan tanh trunc"
)
_IMPORTS = {
    "tvm_ffi.dll": (
        "TVMFFIEnvModLookupFromImports",
        "TVMFFIErrorSetRaisedFromCStr",
        "TVMFFIErrorSetRaisedFromCStrParts",
        "TVMFFIFunctionCall",
        "TVMFFIHandleInitOnce",
    ),
    "ucrtbase.dll": (
        *("memcmp", "memcpy", "memmove", "memset"),
        *(name + end for name in _MATHEMATICS.split() for end in ("", "f")),
    ),
    "ntdll.dll": ("__chkstk",),
}
_MACHINES = {"x86_64": "i386:x86-64", "aarch64": "arm64"}
# What MSVC's runtime defines to say that a program computes with floats; here nothing reads it.
_FLOATS_USED = "int _fltused = 0;\n"


def linker(host: Host) -> Link:
    """A function that links object files of a model into a shared library for `host`.

    It raises StageError where zig fails.
    """

    def link(output: str, objects: Sequence[str], **_options: object) -> None:
        target = Path(output).absolute()
        with tempfile.TemporaryDirectory(prefix="mlc-wizard-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            if host.system == "windows":
                _link_windows(host, target, objects, folder)
                return
            # What kernels call (libm, TVM's error functions) is in the process that loads the library:
            # linking against nothing spares zig the compilation of a C library of its own.
            apple = ("-Wl,-undefined,dynamic_lookup", f"-Wl,-install_name,@rpath/{target.name}")
            flags = ("-shared", "-target", host.zig, "-nostdlib", *(apple if host.system == "macos" else ()))
            zig(("cc", *flags, "-o", str(target), *objects), folder)

    link.object_format = "o"  # type: ignore[attr-defined]  # read by export_library
    return link


def _link_windows(host: Host, output: Path, objects: Sequence[str], folder: Path) -> None:
    libraries = []
    for number, (library, names) in enumerate(_IMPORTS.items()):
        listed = "".join(f" {name}\n" for name in names)
        (folder / f"{number}.def").write_text(f"LIBRARY {library}\nEXPORTS\n{listed}", encoding="utf-8")
        libraries.append(f"{number}.lib")
        machine = _MACHINES[host.architecture]
        zig(("dlltool", "-m", machine, "-d", f"{number}.def", "-l", libraries[-1]), folder)
    (folder / "floats.c").write_text(_FLOATS_USED, encoding="utf-8")
    zig(("cc", "-target", host.zig, "-c", "floats.c", "-o", "floats.obj"), folder)
    # /Brepro: a hash in place of the time, so that the same model gives the same bytes.
    flags = ("/dll", "/noentry", "/Brepro", f"/out:{output}")
    zig(("lld-link", *flags, *objects, "floats.obj", *libraries), folder)


def zig(arguments: Sequence[str], folder: Path) -> None:
    """Run `zig ARGUMENTS` in `folder`. Raises StageError, with the end of what it said, where it fails."""
    with toolchain.zig(arguments, cwd=folder, cache=folder) as process:
        said = process.communicate()[0]
    if process.returncode != 0:
        raise StageError(
            f"The model could not be linked (zig {arguments[0]}, exit code {process.returncode}).",
            why="\n".join(said.strip().splitlines()[-5:]),
            remedy=f"{Path(sys.executable).name} -m pip install --force-reinstall ziglang",
        )
