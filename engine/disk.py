"""The disk: how much room it has, writing whole or not at all, and what is said of a full one."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from engine import paths
from engine.errors import StageError, WizardError
from engine.units import MIB


def free(path: Path) -> int:
    """Free bytes of the disk where `path` is or would be made."""
    return shutil.disk_usage(place(path)).free


def place(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    found = path.absolute()
    while not paths.is_folder(found) and found != found.parent:
        found = found.parent
    return found


def disk_error(error: OSError, path: Path) -> WizardError:
    """`error` in plain words; `path` is what was being written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        room = ""
        with contextlib.suppress(OSError):
            room = f"{free(path) / MIB:.0f} MiB are free."
        return no_space(path, room)
    return StageError(
        f"{path} cannot be written: {error.strerror or error}.",
        remedy="Check the folder's permissions, or choose another.",
        fix="output",
    )


def no_space(path: Path, why: str = "") -> StageError:
    """There is no room left where `path` is."""
    return StageError(
        f"No space left on the disk that holds {path}.",
        why=why,
        remedy="Free some space, or choose a folder on another disk; finished stages are kept.",
        fix="output",
    )


def write_atomically(path: Path, text: str, through: Path | None = None) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all.

    What is no Unicode, as in some file names, is written as JSON escapes it. `through` is a folder on
    the same disk for the half-written file, `path`'s own by default.

    Raises a WizardError where there is no room or no permission.
    """
    temporary = (through or path.parent) / f"{path.name}.tmp"
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error(error, path) from None
