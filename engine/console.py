"""Data on stdout; narration on stderr, for a terminal of any width and for a pipe; signals."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn, TextIO

from engine.errors import StageError

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}
_PROGRESS_SECONDS = 10.0
"""How often progress is worth a line where lines stay."""


def colours_wanted(stream: TextIO) -> bool:
    """NO_COLOR, then FORCE_COLOR, then whether `stream` is a terminal that knows colours."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if sys.platform == "win32" and not {"WT_SESSION", "TERM", "ANSICON"} & os.environ.keys():
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def data(line: str) -> None:
    """One line of stdout. Raises BrokenPipeError where nobody reads, StageError where there is no room."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StageError(
            f"Standard output cannot be written: {error.strerror or error}.",
            remedy="Make room where it goes to, or send it elsewhere.",
        ) from None


class Console:
    """Lines that stay, and on a terminal one status line below them that does not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = False
        self._colours = colours_wanted(stream)
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False
        self._last = 0.0
        try:
            "✓✗▲→…".encode(stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            self.good, self.bad, self.warning, self.ellipsis = "ok", "FAILED", "!", "..."
        else:
            self.good, self.bad, self.warning, self.ellipsis = "✓", "✗", "▲", "…"

    @property
    def width(self) -> int:
        """Columns to fill; lines are told apart best when they are not too long."""
        return min(shutil.get_terminal_size().columns, 100)

    def paint(self, text: str, colour: str) -> str:
        """`text` in `colour`, where colours are wanted."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colours else text

    def line(self, text: str = "", colour: str | None = None) -> None:
        """A line that stays."""
        self.clear()
        self._write((self.paint(text, colour) if colour else text) + "\n")

    def ends(self, left: str, right: str, colour: str) -> None:
        """A line with `left` at its start and `right` at its end; never wrapped on account of that."""
        gap = max(self.width - len(left) - len(right), 2)
        self.line(self.paint(left, colour) + " " * gap + right)

    def status(self, text: str) -> None:
        """What goes on now: the live line on a terminal, else a line every ten seconds."""
        now = time.monotonic()
        if self._live:
            columns = shutil.get_terminal_size().columns - 1
            shown = text if len(text) <= columns else text[: max(columns - 3, 0)] + self.ellipsis
            self._write(f"\r\x1b[K{shown}")
            self._shown = True
        elif now - self._last >= _PROGRESS_SECONDS:
            self._last = now
            self._write(text + "\n")

    def reset_clock(self) -> None:
        """Something new begins: its first progress may wait the full time."""
        self._last = time.monotonic()

    def clear(self) -> None:
        """Take the live line away."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        """Nothing is lost with narration that finds no room: a run goes on without."""
        if self._lost:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            self._lost = True


@contextlib.contextmanager
def stopping(cancel: threading.Event, console: Console) -> Iterator[None]:
    """Signals stop the run in good order; a second one leaves at once, and the children with it."""

    def leave() -> NoReturn:
        os._exit(130)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if cancel.is_set():
            leave()
        cancel.set()
        console.line("Stopping; once more to leave at once.", "yellow")

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {
        getattr(signal, name): signal.signal(getattr(signal, name), on_signal) for name in names
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
