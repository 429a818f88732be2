"""The program in a pseudo terminal, and what a terminal would show of it."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte

from engine import process

PATIENCE = 100.0
"""Seconds for whatever has to come."""


class Terminal:
    """`mlc-wizard` started in `folder`, without presets and models of the person who runs the tests."""

    def __init__(self, folder: Path, **environment: str) -> None:
        # An exported size must not hold for a window that is resized.
        ours = {
            "TERM": "xterm-256color",
            "COLUMNS": "80",
            "LINES": "24",
            "HF_HUB_CACHE": str(folder / "hub"),
            "XDG_CONFIG_HOME": str(folder),
        }
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.Stream(self.screen)
        self.raw = ""
        self._child = pexpect.spawn(
            sys.executable,
            ["-m", "tui"],
            cwd=str(folder),
            env=process.child_environment(ours | environment),
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=PATIENCE,
        )

    @property
    def pid(self) -> int:
        """The process that has the screen."""
        return int(self._child.pid)

    def send(self, keys: str) -> None:
        """Press keys."""
        self._child.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        """What happens when a window is resized."""
        self.screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def wait_for(self, text: str) -> str:
        """The screen once `text` is on it."""
        end = time.monotonic() + PATIENCE
        while text not in (shown := "\n".join(self.screen.display)):
            try:
                # A blinking cursor writes for ever: the end is that of the wait, not of silence.
                if time.monotonic() > end:
                    raise pexpect.TIMEOUT("no such text")
                data = self._child.read_nonblocking(65536, timeout=PATIENCE)
            except pexpect.TIMEOUT:
                raise AssertionError(f"{text!r} did not come:\n{shown}") from None
            except pexpect.EOF:
                raise AssertionError(f"The program ended before {text!r} came:\n{shown}") from None
            self.raw += data
            self._stream.feed(data)
        return shown

    def drain_until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds, without looking at the screen: parsing every frame would lag behind."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "It did not come to that."
            with contextlib.suppress(pexpect.TIMEOUT):
                self._child.read_nonblocking(65536, timeout=0.05)

    def hang_up(self) -> None:
        """Close the window."""
        self._child.close(force=False)

    def wait_for_end(self) -> None:
        """Until the process is gone."""
        self._child.expect(pexpect.EOF)
        self._child.wait()

    def leave(self, key: str) -> int:
        """Press `key`, wait for the end, and say how the program ended."""
        self.send(key)
        self.wait_for_end()
        return int(self._child.exitstatus)
