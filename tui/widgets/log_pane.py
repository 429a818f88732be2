"""The log of a run: the lines, whether they are followed, and a search."""

import datetime
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from tui.symbols import DOT, ELLIPSIS
from tui.widgets.log_lines import Kind, LogStore
from tui.widgets.log_view import LogView

COPIED_LINES = 200
"""How much of the end of the log is copied where nothing is selected; the file has all of it."""


class FindInput(Input):
    """What to look for; enter and the arrows go from match to match."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "step(1)", "Next match"),
        Binding("up", "step(-1)", "Previous match"),
        Binding("escape", "close", "Close"),
    ]

    def action_step(self, by: int) -> None:
        """To another match."""
        self.query_ancestor(LogPane).view.step_match(1 if by > 0 else -1)

    def action_close(self) -> None:
        """Take the search away."""
        self.query_ancestor(LogPane).close_find()


class LogPane(Vertical):
    """A frame around `LogView`; what the lines cannot tell stands in its border."""

    DEFAULT_CLASSES = "box"
    DEFAULT_CSS = """
    LogPane {
        min-height: 3;
        & > #find { height: 1; display: none; }
        &.-finding > #find { display: block; }
        & #needle { width: 1fr; }
        & #found { width: auto; padding: 0 1; color: $foreground-muted; }
    }
    """
    BORDER_TITLE = "Log"

    def __init__(
        self,
        store: LogStore | None = None,
        *,
        saved_to: str = "",
        clock: Callable[[], datetime.datetime] = datetime.datetime.now,
        id: str | None = None,  # noqa: A002  Textual's name
    ) -> None:
        super().__init__(id=id)
        self._store = store
        self._clock = clock
        self._saved_to = saved_to
        self._told: tuple[str, str] = ("", "")

    def compose(self) -> ComposeResult:
        """The lines, and the search below them."""
        yield LogView(self._store)
        with Horizontal(id="find"):
            yield FindInput(placeholder="find in the log", id="needle", compact=True)
            yield Static("", id="found", markup=False)

    def on_mount(self) -> None:
        """Say whether the end is followed."""
        self._tell()

    @property
    def saved_to(self) -> str:
        """Where the whole log is; empty until that is known."""
        return self._saved_to

    @saved_to.setter
    def saved_to(self, path: str) -> None:
        self._saved_to = path
        self._tell()

    def on_resize(self) -> None:
        """A wider frame has room for more of the path."""
        self._tell()

    @property
    def view(self) -> LogView:
        """The lines."""
        return self.query_one(LogView)

    def write(self, lines: Iterable[str], kind: Kind = "output") -> None:
        """Append `lines`, with the time of day before each."""
        self.view.write(lines, clock=f"{self._clock():%H:%M:%S}", kind=kind)

    def toggle_follow(self) -> None:
        """Follow the end, or stay where we are."""
        self.view.following = not self.view.following

    def open_find(self) -> None:
        """Look for something."""
        self.add_class("-finding")
        needle = self.query_one(FindInput)
        needle.focus()
        needle.select_all()
        self.view.find(needle.value)

    def close_find(self) -> None:
        """Look no longer; the place that was found stays in sight."""
        self.remove_class("-finding")
        self.view.find("")
        self.view.focus()

    def text(self) -> str:
        """The end of the log, for an issue or a colleague."""
        return "\n".join(self.view.lines[-COPIED_LINES:])

    def on_input_changed(self, event: Input.Changed) -> None:
        """Find while typing."""
        event.stop()
        self.view.find(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter is the next one."""
        event.stop()
        self.view.step_match(1)

    def on_log_view_changed(self, event: LogView.Changed) -> None:
        """The border tells what changed."""
        event.stop()
        self._tell()

    def _tell(self) -> None:
        view = self.view
        if view.following:
            told = "following"
        elif view.unseen:
            told = f"↓ {view.unseen} new {'line' if view.unseen == 1 else 'lines'} {DOT} f Follow"
        else:
            told = "not following"
        room = self.size.width - len(told) - len(" saved to ") - 8
        path = self.saved_to if len(self.saved_to) <= room else ELLIPSIS + self.saved_to[-room:]
        where = f" {DOT} saved to {path}" if self.saved_to and room > 16 else ""
        if self._told != (shown := (told + where, self._found())):  # drawing a frame is work, too
            self._told = shown
            self.border_subtitle = Content(shown[0])
            self.query_one("#found", Static).update(shown[1])

    def _found(self) -> str:
        view = self.view
        if view.search is None:
            return "enter next  esc close"
        if not view.matches:
            return "not found" if view.settled else "searching"
        place = 0 if view.current is None else bisect_right(view.matches, view.current)
        return f"{place} of {len(view.matches)}" + ("" if view.settled else " so far")
