"""A folder, shown by the desktop that this machine has."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine.errors import ToolchainError

_SECONDS = 5.0
"""A program that has not failed until then is showing the folder."""


def open_folder(folder: Path) -> None:
    """Show `folder` in the file manager.

    Raises ToolchainError where there is no desktop, as in a shell on another machine, or where it refuses.
    """
    if sys.platform == "win32":
        _needs_desktop(there="SSH_CONNECTION" not in os.environ)
        try:
            os.startfile(folder)  # noqa: S606  a folder of our own making
        except OSError as error:
            raise _refused(str(error)) from None
    elif sys.platform == "darwin":
        _needs_desktop(there="SSH_CONNECTION" not in os.environ)
        _start(["open", str(folder)])
    else:
        _needs_desktop(there=bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")))
        opener = shutil.which("xdg-open")
        if opener is None:
            raise _refused("xdg-open is not installed")
        _start([opener, str(folder)])


def _needs_desktop(*, there: bool) -> None:
    if not there:
        raise ToolchainError("There is no desktop here that could show a folder.")


def _refused(why: str) -> ToolchainError:
    return ToolchainError(f"The desktop does not show it: {why}.")


def _start(command: list[str]) -> None:
    """Run `command` apart from this terminal; raise ToolchainError where it fails at once."""
    quiet = subprocess.DEVNULL
    try:
        opener = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        code = opener.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        return
    except OSError as error:
        raise _refused(f"{command[0]}: {error.strerror or error}") from None
    if code:
        raise _refused(f"{Path(command[0]).name} ended with exit code {code}")
