"""A log at any rate: a timer takes lines in, and only those in sight are looked at and drawn."""

import re
import time
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from rich.segment import Segment
from rich.style import Style
from rich.text import Span, Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import Reactive, var
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer

from tui.symbols import CHOSEN, CUT
from tui.widgets.log_lines import Kind, LogStore, Search, columns_of, severity

TICK_SECONDS = 1 / 30
BUDGET_SECONDS = 0.006
"""How long one tick may take in or search lines: the rest of it belongs to keys and drawing."""

_CLOCK = re.compile(r"\d\d:\d\d:\d\d  ")


class LogView(ScrollView, can_focus=True):
    """Lines that follow their end until the user scrolls away from it.

    Lines are taken in by a timer, a few milliseconds' worth at a time, so that a burst of any size
    leaves the screen answering. Above `max_lines` the oldest tenth goes. A line that is cut at an
    edge of the window has a mark there; the arrows move half a window across.
    """

    ALLOW_SELECT = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "across(1)", "Right", show=False, tooltip="The rest of long lines"),
        Binding("left", "across(-1)", "Left", show=False, tooltip="The beginning of long lines"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log-view--clock",
        "log-view--command",
        "log-view--noise",
        "log-view--warning",
        "log-view--error",
        "log-view--good",
        "log-view--match",
        "log-view--current",
    }
    DEFAULT_CSS = """
    LogView {
        overflow: scroll scroll;
        scrollbar-size: 0 1;  /* a bar for long lines would cost a line */
        & > .log-view--clock { color: $foreground-muted; }
        & > .log-view--command { color: $text-primary; text-style: bold; }
        & > .log-view--noise { color: $foreground-muted; }
        & > .log-view--warning { color: $text-warning; }
        & > .log-view--error { color: $text-error; }
        & > .log-view--good { color: $text-success; }
        & > .log-view--match { background: $warning-muted; color: $foreground; }
        & > .log-view--current { background: $warning; color: $background; text-style: bold; }
    }
    """

    # More lines change nothing but what the scrollbar shows: as a layout, which it is in other widgets,
    # every tick would lay out and draw the whole screen.
    virtual_size = Reactive(Size(0, 0))
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
        self.search: Search | None = None
        self.current: int | None = None
        self._seek: int | None = None
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        """Lines may be there already, from a visit before."""
        self._timer = self.set_interval(TICK_SECONDS, self._tick, pause=True)
        self.call_after_refresh(self._grow)
        self._wake()

    # --- lines come in ---------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """The lines that are kept."""
        return self.store.lines

    @property
    def settled(self) -> bool:
        """Whether every line written is in `lines`, and searched."""
        return not self.store.waiting and (self.search is None or self.search.settled)

    def write(self, lines: Iterable[str], *, clock: str = "", kind: Kind = "output") -> None:
        """Append `lines`, all with the time `clock` before them; returns at once."""
        self.store.write(lines, clock, kind)
        self._wake()

    def clear(self) -> None:
        """Forget every line."""
        self.store.clear()
        self.unseen = 0
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
        if taken := self.store.take_in(deadline):
            if not self.following:
                self.unseen += taken
            self._make_room()
            self._grow()
        if self.search is not None:
            self.search.scan(deadline)
            self._seek_match()
        if self.settled:
            assert self._timer is not None
            self._timer.pause()
        self.post_message(self.Changed(self))

    def _make_room(self) -> None:
        dropped = self.store.make_room(self.max_lines)
        if not dropped:
            return
        if self.search is not None:
            self.search.forget_before(self.store.first)
        if not self.following:  # the same lines stay in sight
            self.set_reactive(ScrollView.scroll_y, max(self.scroll_y - dropped, 0))
            self.set_reactive(ScrollView.scroll_target_y, max(self.scroll_target_y - dropped, 0))

    def _grow(self) -> None:
        self.virtual_size = Size(self.store.width, len(self.lines))
        self.vertical_scrollbar.window_virtual_size = len(self.lines)
        if self.following:
            self._pin()
        self.refresh(self.size.region)

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

    def action_across(self, by: int) -> None:
        """Half a window to the right or to the left, for lines that are longer."""
        step = by * max(self._columns // 2, 1)
        self.scroll_to(x=self.scroll_x + step, animate=False, immediate=True)

    # --- find ------------------------------------------------------------------------------------

    def find(self, text: str) -> None:
        """Look for `text` from what is in sight on; capitals matter only where `text` has some."""
        self.search = Search(self.store, text) if text else None
        self.current = None
        self._seek = self.store.first + int(self.scroll_y) if text else None
        self._wake()
        self.refresh()
        self.post_message(self.Changed(self))

    @property
    def matches(self) -> list[int]:
        """The numbers of the lines that were found."""
        return self.search.matches if self.search is not None else []

    def _seek_match(self) -> None:
        if self._seek is not None and self.search is not None:
            self._go_to(self.search.at_or_after(self._seek))

    def step_match(self, by: Literal[1, -1]) -> None:
        """Show the next match, or the one before; after the last comes the first."""
        if self.search is not None:
            self._go_to(self.search.step(self.current, by))

    def _go_to(self, number: int | None) -> None:
        if number is None or self.search is None:
            return
        self._seek = None
        self.current = number
        place = number - self.store.first
        y = place - self.size.height // 2
        found = self.search.pattern.search(self.lines[place])
        start, end = found.span() if found else (0, 0)
        x = self.scroll_x if self.scroll_x <= start and end < self.scroll_x + self._columns else 0
        if end >= x + self._columns:
            x = start - self._columns // 2
        self.scroll_to(x, min(max(y, 0), self.max_scroll_y), animate=False, immediate=True)
        self.following = False  # even on the last page: a match must not be carried off by new lines
        self.refresh()
        self.post_message(self.Changed(self))

    @property
    def _columns(self) -> int:
        """Of text: the scrollbar is beside it."""
        return self.scrollable_content_region.width

    # --- drawing ---------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """The strip of one line of the window."""
        scroll_x, scroll_y = self.scroll_offset
        place, width, style = scroll_y + y, self._columns, self.visual_style.rich_style
        if place >= len(self.lines):
            return Strip.blank(width, style)
        line = self.lines[place]
        columns = columns_of(line)
        spans = list(self._spans(place, line))
        if spans:
            text = Text(line, style, no_wrap=True, end="", spans=spans)
            strip = Strip(text.render(self.app.console), columns)
        else:
            strip = Strip([Segment(line, style)], columns)
        strip = strip.crop_extend(scroll_x, scroll_x + width, style).apply_offsets(scroll_x, place)
        mark = style + self._style("clock")
        if scroll_x and columns:
            strip = Strip.join([Strip([Segment(CUT, mark)], 1), strip.crop(1)])
        if columns > scroll_x + width:
            strip = Strip.join([strip.crop(0, width - 1), Strip([Segment(CHOSEN, mark)], 1)])
        return strip

    def _spans(self, place: int, line: str) -> Iterator[Span]:
        """What of a line looks other than plain text; the last one wins."""
        number = self.store.first + place
        clock = _CLOCK.match(line)
        start = clock.end() if clock else 0
        told = self.store.kinds.get(number) or severity(line)
        if start:
            yield Span(0, start, self._style("clock"))
        if told != "output":
            yield Span(start, len(line), self._style(told))
        if self.search is not None:
            style = self._style("current" if number == self.current else "match")
            for found in self.search.pattern.finditer(line):
                yield Span(*found.span(), style)
        if (selection := self.text_selection) and (span := selection.get_span(place)):
            start, end = span
            style = self.screen.get_component_rich_style("screen--selection")
            yield Span(start, len(line) if end == -1 else end, style)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"log-view--{name}", partial=True)

    # --- copying ---------------------------------------------------------------------------------

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        """The text that the mouse has selected."""
        return selection.extract("\n".join(self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002  Textual's parameters
        """Draw the selection."""
        self.refresh()
