"""Commands as lines of this machine's shell."""

import shlex
import subprocess
import sys
from collections.abc import Sequence


def shell_line(argv: Sequence[str]) -> str:
    """`argv` as a line for this machine's shell."""
    return subprocess.list2cmdline(argv) if sys.platform == "win32" else shlex.join(argv)
