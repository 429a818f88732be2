"""The lines of a log, taken in and searched a slice at a time. Nothing here knows a widget."""

import re
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from rich.cells import cell_len

from engine.explain import is_noise

Kind = Literal["output", "command", "noise", "warning", "error", "good"]

SLICE = 250
"""Lines between two looks at the clock."""
LONGEST = 10_000
"""Characters of a line that are kept; the log file has all of them."""
_LOOKED_AT = 1000
"""Characters of a line in which its severity is looked for."""

# As programs mark them; a "quantization error of 0.1" is none.
_ERROR = re.compile(r"\b(?i:error|fatal):|\b(?:ERROR|FATAL|CRITICAL)\b|\bTraceback \(|\b[A-Z]\w*Error\b")
_WARNING = re.compile(r"\b(?i:warning|warn):|\bWARN(?:ING)?\b|\b[A-Z]\w*Warning\b")


def severity(line: str) -> Kind:
    """How a line of a child reads."""
    head = line[:_LOOKED_AT]
    if is_noise(head):
        return "noise"
    if _ERROR.search(head):
        return "error"
    return "warning" if _WARNING.search(head) else "output"


def columns_of(text: str) -> int:
    """The columns that `text` takes; asked for every line of a burst."""
    return len(text) if text.isascii() else cell_len(text)


@dataclass
class LogStore:
    """Lines with numbers that never change, unlike their places in `lines`: the oldest may go.

    `first` is the number of the first of `lines`, `kinds` are by number and lack the usual "output",
    `width` is that of the widest line so far, in columns.
    """

    lines: list[str] = field(default_factory=list)
    kinds: dict[int, Kind] = field(default_factory=dict)
    first: int = 0
    width: int = 0
    _waiting: deque[tuple[deque[str], str, Kind]] = field(default_factory=deque)

    @property
    def end(self) -> int:
        """The number that the next line will have."""
        return self.first + len(self.lines)

    @property
    def waiting(self) -> bool:
        """Whether there are lines to take in."""
        return bool(self._waiting)

    def write(self, lines: Iterable[str], clock: str, kind: Kind) -> None:
        """Let `lines` wait to be taken in, with the time `clock` before each."""
        self._waiting.append((deque(lines), clock, kind))

    def take_in(self, deadline: float) -> int:
        """Take in waiting lines until `deadline` on the performance counter; how many they were."""
        before = self.end
        while self._waiting and time.perf_counter() < deadline:
            self._take_slice()
        return self.end - before

    def _take_slice(self) -> None:
        waiting, clock, kind = self._waiting[0]
        prefix = f"{clock}  " if clock else ""
        number = self.end
        for _ in range(min(SLICE, len(waiting))):
            line = waiting.popleft()
            if "\t" in line:
                line = line.expandtabs()
            if len(line) > LONGEST:
                line = f"{line[:LONGEST]} ... {len(line) - LONGEST} more characters in the log file"
            self.lines.append(prefix + line)
            if kind != "output":
                self.kinds[number] = kind
            number += 1
        self.width = max(self.width, max(map(columns_of, self.lines[-SLICE:]), default=0))
        if not waiting:
            self._waiting.popleft()

    def make_room(self, most: int) -> int:
        """Drop the oldest lines, a tenth at least, where there are more than `most`; how many went."""
        excess = len(self.lines) - most
        if excess <= 0:
            return 0
        dropped = max(excess, most // 10)
        del self.lines[:dropped]
        self.first += dropped
        self.kinds = {number: kind for number, kind in self.kinds.items() if number >= self.first}
        return dropped

    def clear(self) -> None:
        """Forget every line."""
        self._waiting.clear()
        self.lines.clear()
        self.kinds.clear()
        self.first = self.width = 0


class Search:
    """The lines of `store` that contain `text`; capitals matter only where `text` has some."""

    def __init__(self, store: LogStore, text: str) -> None:
        flags = re.IGNORECASE if text == text.lower() else 0
        self.pattern = re.compile(re.escape(text), flags)
        self.matches: list[int] = []
        self._store = store
        self._scanned = store.first

    @property
    def settled(self) -> bool:
        """Whether every line was looked at."""
        return self._scanned >= self._store.end

    def scan(self, deadline: float) -> None:
        """Look at lines until `deadline` on the performance counter."""
        store, search = self._store, self.pattern.search
        self._scanned = max(self._scanned, store.first)
        while not self.settled and time.perf_counter() < deadline:
            start = self._scanned - store.first
            part = store.lines[start : start + SLICE]
            self.matches += [self._scanned + i for i, line in enumerate(part) if search(line)]
            self._scanned += len(part)

    def forget_before(self, number: int) -> None:
        """Lines before `number` are gone."""
        del self.matches[: bisect_left(self.matches, number)]

    def at_or_after(self, number: int) -> int | None:
        """The first match from line `number` on; the first of all where everything was looked at."""
        place = bisect_left(self.matches, number)
        if place < len(self.matches):
            return self.matches[place]
        return self.matches[0] if self.matches and self.settled else None

    def step(self, current: int | None, by: Literal[1, -1]) -> int | None:
        """The match after or before `current`, round and round; the first where there is no current."""
        if not self.matches or current is None:
            return self.matches[0] if self.matches else None
        return self.matches[(bisect_left(self.matches, current) + by) % len(self.matches)]
