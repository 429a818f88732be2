"""Asking programs: is it there, and what does it say of itself? For the children that probe."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.process import clean
from engine.toolchain.finding import Status
from engine.toolchain.probe import patience

Outcome = Literal["answered", "missing", "failed", "crashed", "silent", "not started"]

_MOST = 1 << 20
"""Bytes of an answer that are looked at."""
_SHOWN = 200


@dataclass(frozen=True)
class Answer:
    """What came of asking. `text` is stdout and stderr, cleaned of terminal codes; `code` as shells say it.

    silent: it was ended because it did not answer in time.
    """

    program: str
    outcome: Outcome
    text: str = ""
    code: int = 0

    @property
    def answered(self) -> bool:
        """Whether it ended as programs should."""
        return self.outcome == "answered"

    @property
    def status(self) -> Status:
        """What that makes of the part that the program is."""
        return "ok" if self.answered else "missing" if self.outcome == "missing" else "broken"

    @property
    def first_line(self) -> str:
        """The first line that has something in it, cut to a length for a table."""
        return clip(next((line.strip() for line in self.text.splitlines() if line.strip()), ""))

    @property
    def last_line(self) -> str:
        """The last such line."""
        return clip(next((line.strip() for line in reversed(self.text.splitlines()) if line.strip()), ""))

    def told(self) -> str:
        """What went wrong, as what was found."""
        name = self.program
        said = f": {self.last_line}" if self.last_line else ""
        match self.outcome:
            case "missing":
                return f"{name} is not on PATH"
            case "silent":
                return f"{name} does not answer within {patience():.0f} s"
            case "crashed":
                return f"{name} crashed ({signal_name(self.code)}){said}"
            case "failed":
                return f"{name} ended with exit code {self.code}{said}"
            case "not started":
                return f"{name} cannot be started{said}"
        return self.first_line or f"{name} printed nothing"

    def version(self, pattern: str = r"\d+(?:\.\d+)+") -> str:
        """The first text that looks like a version, or the group of `pattern`; "" where there is none."""
        found = re.search(pattern, self.text)
        return (found.group(1) if found.groups() else found.group()) if found else ""


def which(name: str) -> str | None:
    """Where the program `name` is, also one with a suffix of PATHEXT."""
    return shutil.which(name)


def ask(argv: Sequence[str], *, cwd: Path | None = None) -> Answer:
    """Run `argv` and wait for its answer, as long as `patience()`; never raises."""
    name = Path(argv[0]).name
    program = which(argv[0])
    if program is None:
        return Answer(name, "missing")
    # Into a file: a pipe stays open as long as anything that the program has started.
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                [program, *argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=os.environ | {"LC_ALL": "C", "NO_COLOR": "1"},
            )
        except OSError as error:
            return Answer(name, "not started", error.strerror or str(error))
        try:
            code = child.wait(patience())
        except subprocess.TimeoutExpired:
            child.kill()  # what it has started ends with this process, which has its process group
            child.wait()
            return Answer(name, "silent")
        said.seek(0)
        text = "\n".join(clean(line) for line in said.read(_MOST).decode("utf-8", "replace").splitlines())
    if code < 0 or (sys.platform == "win32" and code >= 0xC0000000):
        return Answer(name, "crashed", text, 128 - code if code < 0 else code)
    return Answer(name, "failed" if code else "answered", text, code)


def clip(text: str) -> str:
    """`text`, not longer than what a row has room for."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def signal_name(code: int) -> str:
    """The name of the signal that an exit code above 128 stands for, or the code of Windows."""
    if code >= 0xC0000000:
        return f"{code:#x}"
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"signal {code - 128}"


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: 3.1.56 is (3, 1, 56)."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
