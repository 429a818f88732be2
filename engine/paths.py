"""Paths as people and environments state them: what no system can have is told, and told apart.

pathlib's is_file and is_dir raise for a name that is too long, and its expanduser for a user that there
is not; what people type is both.
"""

import errno
import os
from pathlib import Path
from typing import Literal

from engine.errors import StageError, ToolchainError, UsageError, WizardError

Place = str | os.PathLike[str]


def is_file(path: Place) -> bool:
    """Whether `path` leads to a file; False for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113  see above


def is_folder(path: Place) -> bool:
    """Whether `path` leads to a folder; False for a name that no folder can have."""
    return os.path.isdir(path)  # noqa: PTH112  see above


def is_taken(path: Place) -> bool:
    """Whether there is anything of that name, be it a link that leads nowhere."""
    return os.path.lexists(path)


def are_same(path: Place, other: Place) -> bool:
    """Whether both lead to one file or folder, under whatever names; False where one is not there."""
    try:
        return os.path.samefile(path, other)  # noqa: PTH121  takes paths as they are given
    except (OSError, ValueError):
        return False


def expanded(path: Place) -> Path:
    """`path` with a leading ~ as the home folder it means. Raises UsageError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"There is no home folder for {str(path)!r}.",
            why="A leading ~ stands for your home folder, ~name for that of the user called so.",
            remedy=f"Write the whole path, or ./{path} for a name that begins so.",
        ) from None


def of_user(kind: Literal["cache", "config", "data"]) -> Path:
    """The folder of this program for what a user has of that kind; nothing is made.

    Raises ToolchainError for a user without a home, as services and containers have.
    """
    import platformdirs  # --version, and paths that are stated, do without

    places = {
        "cache": platformdirs.user_cache_path,
        "config": platformdirs.user_config_path,
        "data": platformdirs.user_data_path,
    }
    try:
        return places[kind]("mlc-wizard", appauthor=False)
    except RuntimeError:
        raise _homeless() from None


def check_home() -> None:
    """Raise ToolchainError for a user without a home: TVM asks for it and does not start without."""
    try:
        Path.home()
    except RuntimeError:
        raise _homeless() from None


def _homeless() -> ToolchainError:
    return ToolchainError(
        "This user has no home folder.",
        why="HOME is not set, and the system does not know the user either.",
        remedy="Set HOME to a folder that can be written.",
    )


def told(error: OSError) -> WizardError:
    """What the system refused, in plain words, where nobody nearer knows more."""
    try:
        Path.cwd()
    except OSError:
        return UsageError("The current folder is not there any more.", remedy="Go to another: cd DIR")
    said = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return ToolchainError(
            f"{said}: the system lets no more be opened at a time.", remedy="Raise the limit: ulimit -n 1024"
        )
    if error.filename is None:
        return StageError(f"The system refused: {said}.", remedy="Close other programs, or free some space.")
    return StageError(
        f"{os.fsdecode(error.filename)} cannot be used: {said}.",
        remedy="Check that it is there, its permissions, and that its disk is not full.",
    )
