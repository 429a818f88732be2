"""The lines of a log at any rate: kept as plain text, drawn only where they are seen."""

import re
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Span, Text
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer

Kind = Literal["output", "command", "warning", "error", "good"]

TICK_SECONDS = 1 / 30
BUDGET_SECONDS = 0.006
"""How long one tick may take in or search lines: the rest of it belongs to keys and drawing."""
SLICE = 250
"""Lines between two looks at the clock."""
LONGEST = 2000
"""Characters of a line that are shown; the log file has all of them."""

# As programs mark them; a "quantization error of 0.1" is none.
_ERROR = re.compile(r"\b(?i:error|fatal):|\b(?:ERROR|FATAL|CRITICAL)\b|\bTraceback \(|\b[A-Z]\w*Error\b")
_WARNING = re.compile(r"\b(?i:warning|warn):|\bWARN(?:ING)?\b|\b[A-Z]\w*Warning\b")


@dataclass
class LogStore:
    """Lines that outlive the widget. `first` is the number of the first of `lines`, `kinds` by number."""

    lines: list[str] = field(default_factory=list)
    kinds: dict[int, Kind] = field(default_factory=dict)
    first: int = 0


class LogView(ScrollView, can_focus=True):
    """Lines that follow their end until the user scrolls away from it.

    Lines are taken in by a timer, a few milliseconds' worth at a time, so that a burst of any size
    leaves the screen answering; `lines` has them in the order in which they were written. Above
    `max_lines` the oldest tenth goes; `first` is then the number of the oldest that is left.
    """

    ALLOW_SELECT = True
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log-view--clock",
        "log-view--command",
        "log-view--warning",
        "log-view--error",
        "log-view--good",
        "log-view--match",
        "log-view--current",
    }
    DEFAULT_CSS = """
    LogView {
        overflow: scroll scroll;
        scrollbar-size: 0 1;  /* long lines scroll with the arrows; a bar would cost a line */
        scrollbar-background: $background;
        scrollbar-background-hover: $background;
        scrollbar-background-active: $background;
        scrollbar-color: $border-blurred;
        & > .log-view--clock { color: $foreground-muted; }
        & > .log-view--command { color: $text-primary; text-style: bold; }
        & > .log-view--warning { color: $text-warning; }
        & > .log-view--error { color: $text-error; }
        & > .log-view--good { color: $text-success; }
        & > .log-view--match { background: $warning 40%; }
        & > .log-view--current { background: $warning; color: $background; text-style: bold; }
    }
    """

    following: var[bool] = var(True)

    class Changed(Message):
        """What the frame of the log tells has changed: following, new lines, matches."""

        def __init__(self, view: "LogView") -> None:
            self.view = view
            super().__init__()

        @property
        def control(self) -> "LogView":
            """The view itself."""
            return self.view

        def can_replace(self, message: Message) -> bool:
            """One is as good as many."""
            return isinstance(message, LogView.Changed)

    def __init__(self, store: LogStore | None = None, *, max_lines: int = 500_000) -> None:
        super().__init__()
        self.store = store or LogStore()
        self.max_lines = max_lines
        self.unseen = 0
        self.matches: list[int] = []
        self.current: int | None = None
        self._pending: deque[tuple[deque[str], str, Kind]] = deque()
        self._pattern: re.Pattern[str] | None = None
        self._scanned = 0
        self._seek: int | None = None
        self._timer: Timer | None = None
        self._width = 0

    def on_mount(self) -> None:
        """Lines may be there already, from a visit before."""
        self._timer = self.set_interval(TICK_SECONDS, self._tick, pause=True)
        self._width = max(map(cell_len, self.lines), default=0)
        self.call_after_refresh(self._grow)
        self._wake()

    # --- lines come in ---------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """The lines that are kept."""
        return self.store.lines

    @property
    def first(self) -> int:
        """The number of the oldest line that is kept."""
        return self.store.first

    @property
    def end(self) -> int:
        """The number that the next line will have; numbers never change, unlike places in `lines`."""
        return self.first + len(self.lines)

    @property
    def settled(self) -> bool:
        """Whether every line written is in `lines`, and searched."""
        return not self._pending and (self._pattern is None or self._scanned >= self.end)

    def write(self, lines: Iterable[str], *, clock: str = "", kind: Kind = "output") -> None:
        """Append `lines`, all with the time `clock` before them; returns at once."""
        self._pending.append((deque(lines), clock, kind))
        self._wake()

    def clear(self) -> None:
        """Forget every line."""
        self._pending.clear()
        self.lines.clear()
        self.store.kinds.clear()
        self.store.first = self.unseen = self._width = 0
        self.find("")
        self.virtual_size = Size(0, 0)
        self.following = True
        self.refresh()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.resume()

    def _tick(self) -> None:
        """Take in and search what fits into this tick."""
        deadline = time.perf_counter() + BUDGET_SECONDS
        before = self.end
        while self._pending and time.perf_counter() < deadline:
            self._take_in()
        if self.end != before:
            if not self.following:
                self.unseen += self.end - before
            self._make_room()
            self._grow()
        self._search(deadline)
        if self.settled:
            assert self._timer is not None
            self._timer.pause()
        self.post_message(self.Changed(self))

    def _take_in(self) -> None:
        """The next slice of pending lines."""
        waiting, clock, kind = self._pending[0]
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
                self.store.kinds[number] = kind
            number += 1
        self._width = max(self._width, max(map(cell_len, self.lines[-SLICE:]), default=0))
        if not waiting:
            self._pending.popleft()

    def _make_room(self) -> None:
        excess = len(self.lines) - self.max_lines
        if excess <= 0:
            return
        dropped = max(excess, self.max_lines // 10)
        del self.lines[:dropped]
        self.store.first += dropped
        kinds = self.store.kinds
        self.store.kinds = {number: kind for number, kind in kinds.items() if number >= self.first}
        del self.matches[: bisect_left(self.matches, self.first)]
        self._scanned = max(self._scanned, self.first)
        if not self.following:  # the same lines stay in sight
            self.set_reactive(ScrollView.scroll_y, max(self.scroll_y - dropped, 0))
            self.set_reactive(ScrollView.scroll_target_y, max(self.scroll_target_y - dropped, 0))

    def _grow(self) -> None:
        self.virtual_size = Size(self._width, len(self.lines))
        if self.following:
            self._pin()
        self.refresh()

    # --- follow ----------------------------------------------------------------------------------

    def _pin(self) -> None:
        self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)

    def watch_following(self, following: bool) -> None:
        """Following again starts at the end."""
        if following and self.is_mounted:
            self.unseen = 0
            self._pin()
        self.post_message(self.Changed(self))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Scrolling away from the end lets go of it, coming back takes hold of it."""
        super().watch_scroll_y(old_value, new_value)
        self.following = round(new_value) >= self.max_scroll_y

    def on_resize(self, _event: events.Resize) -> None:
        """A smaller or larger window still shows the end where it is followed."""
        if self.following:
            self.call_after_refresh(self._pin)

    def action_scroll_end(self) -> None:
        """The end key follows: while lines come in, the end of now is not the end for long."""
        self.following = True

    # --- find ------------------------------------------------------------------------------------

    def find(self, text: str) -> None:
        """Look for `text` from what is in sight on; capitals matter only where `text` has some."""
        flags = re.IGNORECASE if text == text.lower() else 0
        self._pattern = re.compile(re.escape(text), flags) if text else None
        self.matches = []
        self.current = None
        self._scanned = self.first
        self._seek = self.first + int(self.scroll_y) if text else None
        self._wake()
        self.refresh()
        self.post_message(self.Changed(self))

    @property
    def finding(self) -> bool:
        """Whether there is something to look for."""
        return self._pattern is not None

    def _search(self, deadline: float) -> None:
        if self._pattern is None:
            return
        search = self._pattern.search
        while self._scanned < self.end and time.perf_counter() < deadline:
            start = self._scanned - self.first
            part = self.lines[start : start + SLICE]
            self.matches += [self._scanned + i for i, line in enumerate(part) if search(line)]
            self._scanned += len(part)
        if self._seek is not None and self.matches:
            if self.matches[-1] >= self._seek:
                self._go_to(self.matches[bisect_left(self.matches, self._seek)])
            elif self._scanned >= self.end:
                self._go_to(self.matches[0])

    def step_match(self, by: Literal[1, -1]) -> None:
        """Show the next match, or the one before; after the last comes the first."""
        if not self.matches:
            return
        if self.current is None:
            self._go_to(self.matches[0])
            return
        place = bisect_left(self.matches, self.current)
        self._go_to(self.matches[(place + by) % len(self.matches)])

    def _go_to(self, number: int) -> None:
        self._seek = None
        self.current = number
        y = number - self.first - self.size.height // 2
        self.scroll_to(y=min(max(y, 0), self.max_scroll_y), animate=False, immediate=True)
        self.following = False  # even on the last page: a match must not be carried off by new lines
        self.refresh()
        self.post_message(self.Changed(self))

    # --- drawing ---------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """The strip of one line of the window."""
        scroll_x, scroll_y = self.scroll_offset
        place, width, style = scroll_y + y, self.size.width, self.visual_style.rich_style
        if place >= len(self.lines):
            return Strip.blank(width, style)
        line = self.lines[place]
        spans = list(self._spans(place, line))
        if spans:
            text = Text(line, style, no_wrap=True, end="", spans=spans)
            strip = Strip(text.render(self.app.console), cell_len(line))
        else:
            strip = Strip([Segment(line, style)], cell_len(line))
        return strip.crop_extend(scroll_x, scroll_x + width, style).apply_offsets(scroll_x, place)

    def _spans(self, place: int, line: str) -> Iterator[Span]:
        """What of a line looks other than plain text; the last one wins."""
        number = self.first + place
        clock = _CLOCK.match(line)
        start = clock.end() if clock else 0
        told = self.store.kinds.get(number) or self._severity(line)
        if start:
            yield Span(0, start, self._style("clock"))
        if told != "output":
            yield Span(start, len(line), self._style(told))
        if self._pattern is not None:
            style = self._style("current" if number == self.current else "match")
            for found in self._pattern.finditer(line):
                yield Span(*found.span(), style)
        if (selection := self.text_selection) and (span := selection.get_span(place)):
            start, end = span
            style = self.screen.get_component_rich_style("screen--selection")
            yield Span(start, len(line) if end == -1 else end, style)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"log-view--{name}", partial=True)

    @staticmethod
    def _severity(line: str) -> Kind:
        """How a line of the child reads; only of the few in sight this is asked."""
        if _ERROR.search(line):
            return "error"
        return "warning" if _WARNING.search(line) else "output"

    # --- copying ---------------------------------------------------------------------------------

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        """The text that the mouse has selected."""
        return selection.extract("\n".join(self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002
        """Draw the selection."""
        self.refresh()


_CLOCK = re.compile(r"\d\d:\d\d:\d\d  ")
