"""The step Run: stages, log, and what to do when one fails."""

import datetime
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Button

from engine import runner
from engine.errors import StageError, WizardError
from engine.events import Output, RunEnded, RunStarted
from engine.plan import ExportPlan
from tui.messages import EngineEvent, RunRefused
from tui.run_log import told
from tui.run_state import Phase, RunState
from tui.screens import review
from tui.screens.confirm import ConfirmModal
from tui.screens.step import StepScreen
from tui.smooth import smooth
from tui.symbols import DOT, ELLIPSIS, WARNING
from tui.widgets.export_lists import Verification
from tui.widgets.failure_box import FailureBox
from tui.widgets.log_lines import LogStore
from tui.widgets.log_pane import COPIED_LINES, LogPane
from tui.widgets.log_view import LogView
from tui.widgets.stage_list import StageList, told_of

NOTE = "run"
"""Where in `Draft.notes` the last run is, for the visits after it."""


class RunRecord:
    """A run and its log; they outlive the screen, which is made anew on every visit."""

    def __init__(self) -> None:
        self.state = RunState()
        self.log = LogStore()
        self.verification: Verification | None = None
        self.preset = ""  # the one that makes the same again


class RunScreen(StepScreen):
    """Runs the draft's plan, which begins on entering unless it was run to its end already.

    The run lives in a worker thread and speaks in messages; leaving ends it. `clock` is in seconds.
    """

    STEP = "run"
    FIRST_KEYS = ("next", "stop", "retry")
    HELP = """
## Run

The stages run one after the other, each as a program of its own; the commands are those of the step
Review and of the log. Nothing is lost by stopping: **finished stages are kept**, here and after
`mlc-wizard` itself was closed or killed, and the next run goes on with the one that was not.

- **x** stops the run, after a question; **r** goes on with the stage that failed or was stopped
- **R** runs every stage again, finished or not
- **f** follows the end of the log or stays; scrolling up stays, **end** follows
- **/** finds text in the log: **enter** and **n** go to the next, **N** to the one before
- **l** shows the log alone; **c** copies what is selected, or the log's end; **y** copies the log's path

A bar without a length belongs to work whose end cannot be known. *kept* is a stage that was finished before,
and for which nothing changed since.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "stop", "Stop", tooltip="Stop the run; finished stages are kept"),
        Binding("r", "retry", "Retry", tooltip="Go on with the stage that failed or was stopped"),
        Binding("R", "fresh", "Run all again", show=False, tooltip="Run every stage, finished or not"),
        Binding("e", "edit", "Edit plan", show=False, tooltip="Back to the review"),
        Binding("f", "follow", "Follow", tooltip="Follow the end of the log, or stay"),
        Binding("l", "log_only", "Log only", tooltip="The log alone, or with the stages"),
        Binding("slash", "find", "Find", key_display="/", tooltip="Find text in the log"),
        Binding("n", "match(1)", "Next match", show=False),
        Binding("N", "match(-1)", "Previous match", show=False),
        Binding("c", "copy", "Copy", tooltip="Copy the selection, or the end of the log"),
        Binding("y", "copy_path", "Copy the log's path", show=False),
        Binding("p", "plan", "Plan", show=False),
    ]
    DEFAULT_CSS = """
    RunScreen {
        #body { overflow: hidden; }
        &.-log-only { StageList, FailureBox, StepRail { display: none; } }
        &.-low StageList { display: none; }
    }
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    wall_clock: Callable[[], datetime.datetime] = staticmethod(datetime.datetime.now)

    def __init__(self) -> None:
        super().__init__()
        self._record = RunRecord()
        self._cancel = threading.Event()
        self._afterwards: Callable[[], Any] | None = None
        self._next: Callable[[], Any] | None = None
        self._shown: Phase | None = None

    @property
    def state(self) -> RunState:
        """What is known of the run."""
        return self._record.state

    def compose_body(self) -> ComposeResult:
        """Stages, failure, log."""
        kept = self.draft.notes.get(NOTE)
        if (
            isinstance(kept, RunRecord)
            and kept.state.phase == "done"
            and kept.state.plan == self.draft.plan()
        ):
            self._record = kept
        yield StageList(self.state, clock=self.clock)
        yield FailureBox()
        path = self.state.started.log if self.state.started else ""
        yield LogPane(self._record.log, saved_to=path, clock=self.wall_clock)

    def on_enter(self) -> None:
        """Begin, or show the run that was."""
        self.query_one(LogView).focus()
        if self.state.phase == "done":
            self._show()
        else:
            self._start()

    def on_unmount(self) -> None:
        """Nobody is left to see the run; its stage ends with it."""
        self._cancel.set()

    @property
    def complete(self) -> bool:
        """The export is there."""
        return self.state.phase == "done"

    def why_incomplete(self) -> str:
        """What there is to wait for."""
        return "The export is not finished." if self.state.active else "The run did not come to its end."

    # --- the run ---------------------------------------------------------------------------------

    def _start(self, *, fresh: bool = False) -> None:
        plan = self.draft.plan()
        self._next = None
        self.draft.notes[NOTE] = self._record
        self._record.preset = self.draft.repeated_by
        self.draft.done -= {"run", "result"}
        self._cancel = threading.Event()
        self.state.begin(plan, self.clock())
        self._show()
        self._run(plan, self._cancel, fresh=fresh)

    @work(thread=True, exit_on_error=False, group="export")
    def _run(self, plan: ExportPlan, cancel: threading.Event, *, fresh: bool) -> None:
        last: RunEnded | None = None
        try:
            with smooth():
                for event in runner.run(plan, cancel, fresh=fresh):
                    if isinstance(event, RunEnded):
                        last = event  # told once the folder is free again: the next run may follow at once
                    else:
                        self.post_message(EngineEvent(event))
        except WizardError as error:
            self.post_message(RunRefused(error))
        except Exception as error:  # the screen must not wait for ever
            self.post_message(RunRefused(_fault(error)))
        else:
            if last is not None:
                self.post_message(EngineEvent(last))

    def on_engine_event(self, message: EngineEvent) -> None:
        """The run says something."""
        event = message.event
        lines, kind = told(event)
        if lines:
            self.query_one(LogPane).write(lines, kind)
        if isinstance(event, Output):
            return
        self.state.feed(event, self.clock())
        if isinstance(event, RunStarted):
            self.query_one(LogPane).saved_to = event.log
        if isinstance(event, RunEnded):
            self._over()
        self._show()

    def on_run_refused(self, message: RunRefused) -> None:
        """The run could not begin, or broke off."""
        self.state.refuse(message.error, self.clock())
        self.query_one(LogPane).write(str(message.error).splitlines(), "error")
        self._over()
        self._show()

    def _over(self) -> None:
        """The run came to an end: go where somebody wanted to go, or to the result."""
        if isinstance(self.app.screen, ConfirmModal):
            self.app.screen.dismiss(False)
        go, self._afterwards = self._afterwards, None
        if self.state.phase == "done":
            self.draft.done |= {"review", "run"}
        if go is None and self.state.phase == "done":
            go = partial(self.wizard.go, "result")
        self._next = go
        self.call_later(self._proceed)

    @on(events.ScreenResume)
    def _proceed(self) -> None:
        """Go on, once nothing stands in front of this screen: help is read to its end."""
        if self._next is not None and self.app.screen is self:
            go, self._next = self._next, None
            go()

    def _show(self) -> None:
        """Show the state; what only another phase changes is laid out anew only then."""
        self.query_one(StageList).refresh_state()
        self._name_log()
        if self._shown != self.state.phase:
            self._shown = self.state.phase
            self.query_one(FailureBox).show(self.state)
            self.refresh_bindings()

    def _name_log(self) -> None:
        """Where the stages are not in sight, the frame of the log has the one at work."""
        stage, stages = self.state.running, self.query_one(StageList)
        told = "" if stages.display or stage is None else f" {DOT} {stage.label}, {told_of(stage)}"
        self.query_one(LogPane).border_title = Content(f"{LogPane.BORDER_TITLE}{told}")

    # --- keys ------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what makes sense now."""
        match action:
            case "stop":
                return self.state.active
            case "retry" | "fresh" | "edit":
                return self.state.phase in ("failed", "cancelled")
            case "next":
                return self.complete
        return super().check_action(action, parameters)

    def action_stop(self) -> None:
        """Ask, then stop."""
        if self.state.phase == "running":
            self._ask(
                "Stop the run?",
                "The stage at work begins anew next time; finished stages are kept.",
                "Stop",
                self._stop,
            )

    def _ask(self, title: str, message: str, yes: str, then: Callable[[], Any]) -> None:
        def answered(answer: bool | None) -> None:
            if answer:
                then()

        self.app.push_screen(ConfirmModal(title, message, yes=yes, no="Keep running"), answered)

    def _stop(self) -> None:
        self._cancel.set()
        self.state.stop()
        self.query_one(LogPane).write([f"{WARNING} Stopping{ELLIPSIS}"], "warning")
        self._show()

    def leaving(self, go: Callable[[], Any]) -> None:
        """A run would stop: ask; asked again while it stops, go at once."""
        if not self.state.active:
            go()
        elif self.state.phase == "stopping":
            self._afterwards = None
            go()
        else:
            self._ask(
                "Stop the run and leave?",
                "The run ends with this screen. Finished stages are kept; the next run goes on from there.",
                "Stop and leave",
                lambda: self._stop_and(go),
            )

    def _stop_and(self, go: Callable[[], Any]) -> None:
        if not self.state.active:  # it ended while the question stood
            go()
            return
        self._afterwards = go
        self._stop()

    def action_retry(self) -> None:
        """Run again; stages that are finished are kept."""
        self._start()

    def action_fresh(self) -> None:
        """Run every stage again."""
        self._start(fresh=True)

    def action_edit(self) -> None:
        """To where the plan is mended: the step of what stands in the way, else the review."""
        fix = self.state.failure.fix if self.state.failure else ""
        if fix == "output":
            self.draft.notes[review.TO_FOLDER] = True
        self.wizard.go("target" if fix == "compile" else "review")

    @on(Button.Pressed)
    async def pressed(self, event: Button.Pressed) -> None:
        """The buttons of the failure."""
        event.stop()
        await self.run_action(event.button.id or "")

    def action_follow(self) -> None:
        """Follow the log, or stay."""
        self.query_one(LogPane).toggle_follow()

    def action_log_only(self) -> None:
        """The log alone."""
        self.toggle_class("-log-only")
        self.call_after_refresh(self._name_log)

    def action_find(self) -> None:
        """Find text in the log."""
        self.query_one(LogPane).open_find()

    def action_match(self, by: int) -> None:
        """To another match."""
        self.query_one(LogView).step_match(1 if by > 0 else -1)

    def action_copy(self) -> None:
        """The selection, or failure and end of the log."""
        selected = self.get_selected_text()
        text = selected or "\n".join([str(self.state.failure or ""), self.query_one(LogPane).text()]).strip()
        self.app.copy_to_clipboard(text)
        what = "the selection" if selected else f"the last {COPIED_LINES} lines of the log"
        self.notify(f"Copied {what}.", markup=False)

    def action_copy_path(self) -> None:
        """Where the whole log is."""
        path = self.query_one(LogPane).saved_to
        if path:
            self.app.copy_to_clipboard(path)
            self.notify(f"Copied {path}", markup=False)


def _fault(error: Exception) -> StageError:
    return StageError(
        f"The run broke off: {type(error).__name__}: {error}",
        why="This is a fault of mlc-wizard itself.",
        remedy="Finished stages are kept; run again, and report it with the log if it comes back.",
    )
