"""Shared libraries for Android, linked by the NDK that the user has."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.embedded.native import tool
from engine.errors import StageError, ToolchainError

API_LEVEL = 24
"""Android 7.0: the oldest that today's NDKs have OpenCL apps of MLC for."""
_HOSTS = {"darwin": "darwin-x86_64", "win32": "windows-x86_64"}


def compiler() -> Path:
    """The NDK's C compiler: TVM_NDK_CC, or that of ANDROID_NDK or ANDROID_NDK_HOME. Raises ToolchainError."""
    if named := os.environ.get("TVM_NDK_CC"):
        found = shutil.which(named)
        if found is None:
            raise ToolchainError(
                f"TVM_NDK_CC is {named}, which is no program.",
                remedy="Set it to aarch64-linux-androidXX-clang of an Android NDK, or unset it.",
            )
        return Path(found)
    for variable in ("ANDROID_NDK", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT"):
        if root := os.environ.get(variable):
            system = _HOSTS.get(sys.platform, "linux-x86_64")
            folder = Path(root) / "toolchains" / "llvm" / "prebuilt" / system / "bin"
            found = shutil.which(f"aarch64-linux-android{API_LEVEL}-clang", path=str(folder))
            if found:
                return Path(found)
            raise ToolchainError(
                f"{variable} is {root}, where no C compiler for Android is.",
                why=f"It was looked for in {folder}.",
                remedy=f"Set {variable} to the folder of an Android NDK.",
            )
    raise ToolchainError(
        "A shared library for Android is linked by an Android NDK, and none is named here.",
        why="Apps link the library for android as a .tar, which needs no NDK.",
        remedy="Write -o to a .tar, or set ANDROID_NDK to the folder of an NDK.",
    )


def link(output: str, objects: Sequence[str], **_options: object) -> None:
    """Link `objects` into a shared library, as relax's `export_library(output, fcompile=link)` calls it.

    Raises ToolchainError without an NDK, StageError where it fails.
    """
    command = [str(compiler()), "-shared", "-fPIC", "-o", output, *objects, "-lm"]
    done = tool.run(command)
    if done.returncode != 0:
        raise StageError(
            f"The model could not be linked (the NDK's clang, exit code {done.returncode}).",
            why="\n".join(done.stdout.strip().splitlines()[-5:]),
            remedy="Check TVM_NDK_CC or ANDROID_NDK.",
        )


link.object_format = "o"  # type: ignore[attr-defined]  # read by export_library
