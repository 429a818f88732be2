"""The command in a real terminal: resized, interrupted, closed and killed while it exports."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals that pexpect can open", allow_module_level=True)

import pexpect
import pyte

ROOT = Path(__file__).parents[1]
PATIENCE = 60
"""Seconds until something that was to appear counts as missing; nothing is said about speed."""


class Terminal:
    """`mlc-wizard` in a terminal, which is drawn in memory."""

    def __init__(self, folder: Path, columns: int = 80, rows: int = 24) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        ours = dict(os.environ)
        ours |= {"XDG_CONFIG_HOME": str(folder / "config"), "PYTHONPATH": str(ROOT)}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            ours.pop(name, None)
        ours |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "tui"],
            cwd=str(folder),
            env=ours,
            dimensions=(rows, columns),
        )
        self.process = psutil.Process(self.child.pid)

    def read(self) -> bool:
        """Draw what has come; False once the command is gone."""
        try:
            self._stream.feed(self.child.read_nonblocking(1 << 16, timeout=0.1))
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:
            return False
        return True

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def wait_for(self, pattern: str) -> str:
        """Until `pattern` is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert self.read() or re.search(pattern, self.text), f"ended without {pattern!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {pattern!r} on:\n{self.text}"
        return self.text

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def wait_for_end(self) -> int:
        """Until the command is gone; its exit code, or minus the signal that ended it."""
        while self.read():
            pass
        self.child.wait()
        return self.child.exitstatus if self.child.signalstatus is None else -self.child.signalstatus

    def close(self) -> None:
        if self.child.isalive():
            self.process.kill()
        self.child.close(force=True)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def compiling(terminals: list[Terminal], tmp_path: Path) -> tuple[Terminal, list[psutil.Process]]:
    """A run of the demo preset that has come to its compilation, and the processes at work."""
    terminal = Terminal(tmp_path)
    terminals.append(terminal)
    for keys, then in (("", "demo +demo model"), ("/", "part of a name"), ("demo", "─ demo ─")):
        terminal.child.send(keys)
        terminal.wait_for(then)
    terminal.child.send("\r")
    terminal.wait_for("enter Open")
    terminal.child.send("r")
    terminal.wait_for("● compile library")
    workers = terminal.process.children(recursive=True)
    assert workers
    return terminal, workers


def all_gone(workers: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(workers, timeout=PATIENCE)[1]


def test_killed_in_the_middle_nothing_is_left_and_the_next_run_goes_on(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    terminal, workers = compiling(terminals, tmp_path)
    terminal.process.send_signal(signal.SIGKILL)
    assert all_gone(workers)
    assert not (tmp_path / "mlc-demo" / "export-receipt.json").exists()

    again = Terminal(tmp_path)
    terminals.append(again)
    again.wait_for("Continue mlc-demo")
    again.child.send("\x1b[B\r")
    text = again.wait_for("● compile library")
    assert re.search("✓ convert weights .* kept", text)
    for columns, rows in ((40, 12), (160, 50), (80, 24)):
        again.resize(columns, rows)
        again.wait_for("compil|Exported in")
    text = again.wait_for("Exported in")
    assert "checks passed" in again.wait_for("checks passed")
    assert (tmp_path / "mlc-demo" / "export-receipt.json").exists()
    again.child.send("\x11")
    assert again.wait_for_end() == 0


def test_ctrl_c_asks_and_then_leaves_nothing_behind(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal, workers = compiling(terminals, tmp_path)
    terminal.child.send("\x03")
    terminal.wait_for("Stop the run and leave")
    terminal.child.send("n")
    terminal.wait_for("● compile library")
    terminal.child.send("\x03")
    terminal.wait_for("Stop the run and leave")
    terminal.child.send("y")
    assert terminal.wait_for_end() == 0
    assert all_gone(workers)
    assert not list((tmp_path / "mlc-demo" / ".mlc-wizard").glob("*.partial"))


def test_a_terminal_that_is_closed_takes_the_run_with_it(terminals: list[Terminal], tmp_path: Path) -> None:
    terminal, workers = compiling(terminals, tmp_path)
    terminal.child.close(force=False)
    assert all_gone([terminal.process, *workers])
