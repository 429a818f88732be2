"""The stages of a run: how far each is, how long it took, how fast it goes."""

import time
from collections.abc import Callable, Iterator
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.geometry import Size
from textual.reactive import var
from textual.timer import Timer
from textual.widget import Widget

from engine.events import Progress
from engine.units import megabytes
from tui.run_state import RunState, Stage, StageState
from tui.symbols import DONE, DOT, ELLIPSIS, FAILED, RUNNING, WAITING, WARNING

TICK_SECONDS = 0.25
_MARKS: dict[StageState, tuple[str, str]] = {
    "waiting": (WAITING, "$foreground-muted"),
    "running": (RUNNING, "$primary"),
    "done": (DONE, "$success"),
    "skipped": (DONE, "$foreground-muted"),
    "failed": (FAILED, "$error"),
    "cancelled": (WARNING, "$warning"),
}
_WORDS: dict[StageState, str] = {
    "waiting": "waiting",
    "running": "working",
    "done": "done",
    "skipped": "kept",
    "failed": "failed",
    "cancelled": "stopped",
}
_LABEL, _TOLD, _CLOCK = 16, 11, 8
"""Columns of a stage's name, of what is told at the bar's end, and of its time."""
_SHORTEST_BAR = 8


class StageList(Widget):
    """One row a stage, and below the one at work a line on what it is doing.

    The bar of a stage without a known total has no length: it shows only that work goes on.
    """

    DEFAULT_CLASSES = "box"
    DEFAULT_CSS = """
    StageList { height: auto; }
    """
    BORDER_TITLE = "Stages"
    ALLOW_SELECT: ClassVar[bool] = False

    beat: var[int] = var(0)

    def __init__(
        self,
        state: RunState,
        *,
        clock: Callable[[], float] = time.monotonic,
        id: str | None = None,  # noqa: A002  Textual's name
    ) -> None:
        super().__init__(id=id)
        self._state = state
        self._clock = clock
        self._timer: Timer | None = None
        self._height = 0

    def on_mount(self) -> None:
        """Time goes on only while the run does."""
        self._timer = self.set_interval(TICK_SECONDS, self._tick, pause=True)
        self.refresh_state()

    def refresh_state(self) -> None:
        """The state changed: show it."""
        if self._timer is not None:
            (self._timer.resume if self._state.active else self._timer.pause)()
        self._show_elapsed()
        rows = len(self._state.stages) + self._state.active
        self.refresh(layout=self._height != rows)
        self._height = rows

    def _tick(self) -> None:
        self.beat += 1
        self._show_elapsed()
        self.refresh()

    def _show_elapsed(self) -> None:
        state = self._state
        word = {"stopping": f"stopping{ELLIPSIS} ", "cancelled": "stopped ", "failed": "failed "}
        told = clock_of(state.elapsed(self._clock())) if state.stages else ""
        self.border_subtitle = word.get(state.phase, "") + told

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002  Textual's
        """A row a stage, and one for the details: the height stays while the run goes on."""
        return max(len(self._state.stages), 1) + self._state.active

    def render(self) -> Content:
        """The rows."""
        width = self.content_size.width
        if not self._state.stages:
            told = f"Preparing{ELLIPSIS}" if self._state.active else "Nothing was run."
            return Content.styled(told, "$foreground-muted")
        return Content("\n").join(self._rows(width))

    def _rows(self, width: int) -> Iterator[Content]:
        now = self._clock()
        for stage in self._state.stages.values():
            yield self._row(stage, now, width)
            if stage.state == "running":
                yield Content.styled(
                    set_cell_size(f"  {_details(stage)}", width).rstrip(), "$foreground-muted"
                )

    def _row(self, stage: Stage, now: float, width: int) -> Content:
        mark, colour = _MARKS[stage.state]
        elapsed = stage.elapsed(now)
        clock = clock_of(elapsed) if elapsed is not None and stage.state != "skipped" else ""
        told = told_of(stage)
        room = width - 2 - _LABEL - 2 - 2 - _TOLD - 1 - _CLOCK
        parts: list[str | tuple[str, str]] = [
            (mark, colour),
            " ",
            (f"{stage.label:<{_LABEL}}", "bold" if stage.state == "running" else ""),
        ]
        if room >= _SHORTEST_BAR:
            parts += ["  ", *self._bar(stage, room), "  "]
        else:
            parts += [" " * max(width - 2 - _LABEL - _TOLD - 1 - _CLOCK, 1)]
        text = colour if colour.startswith("$foreground") else colour.replace("$", "$text-")
        parts += [(f"{told:<{_TOLD}}", text), " ", (f"{clock:>{_CLOCK}}", "")]
        return Content.assemble(*parts)

    def _bar(self, stage: Stage, width: int) -> list[tuple[str, str]]:
        colour = _MARKS[stage.state][1]
        track = "$foreground 20%"
        if stage.state in ("done", "skipped"):
            return [("━" * width, colour)]
        progress = stage.progress
        if progress is not None and progress.total:
            halves = min(2 * width * progress.done // progress.total, 2 * width)
            filled = "━" * (halves // 2) + ("╸" if halves % 2 else "")
            return [(filled, colour), ("─" * (width - cell_len(filled)), track)]
        if stage.state == "running" and self.app.animation_level != "none":
            length = max(width // 6, 2)
            start = self.beat % (width - length + 1)
            return [("─" * start, track), ("━" * length, colour), ("─" * (width - length - start), track)]
        return [("─" * width, track)]


def told_of(stage: Stage) -> str:
    """What stands at the end of the bar."""
    progress = stage.progress
    if stage.state == "running" and progress is not None:
        if progress.unit == "bytes" and progress.total:
            return f"{100 * progress.done // progress.total} %"
        if progress.total:
            unit = progress.unit.rpartition(" ")[2]
            return f"{progress.done}/{progress.total} {unit}"
        return megabytes(progress.done) if progress.unit == "bytes" else f"{progress.done} {progress.unit}"
    return _WORDS[stage.state]


def _details(stage: Stage) -> str:
    """Amount, throughput, time left, and what is being worked on."""
    progress = stage.progress
    if progress is None:
        return ""
    parts = [_amount(progress)] if progress.unit == "bytes" and progress.total else []
    rate = stage.rate.per_second
    if progress.unit == "bytes" and rate:
        parts.append(f"{megabytes(round(rate))}/s")
    if (left := stage.remaining()) is not None:
        parts.append(f"{clock_of(left)} left")
    if progress.detail:
        parts.append(progress.detail)
    return f" {DOT} ".join(parts)


def _amount(progress: Progress) -> str:
    return f"{megabytes(progress.done)} of {megabytes(progress.total or 0)}"


def clock_of(seconds: float) -> str:
    """`seconds` as 01:54, or 2:01:54 from an hour up."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
