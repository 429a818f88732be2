"""Other people's compilers and linkers, run to their end."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


def run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder`, by default here; `stdout` of the result has all that it said.

    Whether it failed, the caller judges by the exit code. Raises OSError where it cannot be started.
    """
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
