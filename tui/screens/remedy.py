"""A remedy: its commands are shown, run after a yes, and their output streamed."""

import datetime
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Button, Input, Static

from engine.errors import Cancelled, UsageError, WizardError
from engine.shell import shell_line
from engine.toolchain import remedies
from engine.toolchain.finding import Finding, Remedy
from tui.describe import for_screen
from tui.messages import RemedySaid
from tui.screens.confirm import ConfirmModal
from tui.symbols import DONE, FAILED, WARNING
from tui.widgets.key_line import KeyLine
from tui.widgets.log_lines import LogStore
from tui.widgets.log_pane import LogPane
from tui.widgets.log_view import LogView

Phase = Literal["asking", "running", "done", "failed", "stopped"]


class RemedyScreen(Screen[bool]):
    """Asks, then runs the remedy of `finding`; True where something was run, whatever came of it."""

    HELP = """
## A remedy

The commands that are shown are run, one after the other, and nothing else. They change nothing but packages
of an environment, or a cache of mlc-wizard's own.

- **y** runs them; **n** or **escape** goes back
- where an environment is made, **tab** goes to its folder, which can be changed before
- while they run, **x**, **escape** and **ctrl+c** stop them, after a question; nothing is left running
- **c** copies the commands and what they said
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "run", "Run", tooltip="Run the commands that are shown"),
        Binding("x", "stop", "Stop", tooltip="Stop the command at work"),
        Binding("c", "copy", "Copy", tooltip="Copy the commands, and what they said"),
        Binding("escape,n", "close", "Back", key_display="esc", tooltip="Back to the toolchain"),
    ]
    clock: Callable[[], datetime.datetime] = staticmethod(datetime.datetime.now)

    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self._finding = finding
        self._remedy = finding.remedy
        self._cancel = threading.Event()
        self._afterwards: Callable[[], Any] | None = None
        self.phase: Phase = "asking"

    def compose(self) -> ComposeResult:
        """Commands, environment, state, answers, output."""
        with Vertical(id="remedied"):
            with VerticalScroll(id="cure", classes="box", can_focus=False) as box:
                box.border_title = f"Remedy: {self._finding.title}"
                yield Static("", id="lines", markup=False)
            with HorizontalGroup(id="environment"):
                yield Static("environment", classes="name")
                yield Input(self._remedy.environment, id="folder", compact=True)
            yield Static("", id="told", markup=False)
            with HorizontalGroup(id="answers"):
                yield Button("y  Run", variant="warning", id="yes", compact=True)
                yield Button("n  Back", id="no", compact=True)
            yield LogPane(LogStore(), clock=self.clock)
        yield KeyLine()

    def on_mount(self) -> None:
        """No is what enter means."""
        self.query_one("#environment").set_class(bool(self._remedy.environment), "-asked")
        self._show_commands()
        self.query_one("#no", Button).focus()

    def on_unmount(self) -> None:
        """Nobody is left to see it: the command ends."""
        self._cancel.set()

    @property
    def running(self) -> bool:
        """Whether a command is at work."""
        return self.phase == "running"

    def _show_commands(self) -> None:
        lines = [self._remedy.told, "", *(f"$ {line}" for line in self._remedy.commands)]
        self.query_one("#lines", Static).update("\n".join(lines))

    def _tell(self, text: str, kind: str = "") -> None:
        state = self.query_one("#told", Static)
        state.update(text)
        for name in ("done", "failed", "stopped"):
            state.set_class(name == kind, f"-{name}")

    # --- asking ----------------------------------------------------------------------------------

    @on(Input.Changed, "#folder")
    def _elsewhere(self, event: Input.Changed) -> None:
        """Another environment: the commands are shown as they would be run."""
        folder = event.value.strip()
        try:
            remedies.check_environment(folder)
        except UsageError as error:
            self._tell(f"{FAILED} {for_screen(error)}", "failed")
            return
        self._tell("")
        self._remedy = self._finding.remedy.elsewhere(folder)
        self._show_commands()

    @on(Input.Submitted, "#folder")
    def _entered(self) -> None:
        """Enter in the field is no yes."""
        self.query_one("#no", Button).focus()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "yes":
            self.action_run()
        else:
            self.action_close()

    # --- running ---------------------------------------------------------------------------------

    def action_run(self) -> None:
        """Run the commands as they are shown."""
        if self.phase != "asking":
            return
        if self._remedy.environment:
            try:
                remedies.check_environment(self.query_one("#folder", Input).value)
            except UsageError as error:
                self._tell(f"{FAILED} {for_screen(error)}", "failed")
                return
        self.phase = "running"
        self.add_class("-ran")
        self._tell("Running.")
        self.query_one(LogView).focus()
        self.refresh_bindings()
        self._follow(self._remedy, self._cancel)

    @work(thread=True, exit_on_error=False, group="remedy")
    def _follow(self, remedy: Remedy, cancel: threading.Event) -> None:
        for event in remedies.follow(remedy, cancel):
            self.post_message(RemedySaid(event))

    @on(RemedySaid)
    def _said(self, message: RemedySaid) -> None:
        log = self.query_one(LogPane)
        match message.event:
            case remedies.Begun(argv):
                log.write([f"$ {shell_line(argv)}"], "command")
            case remedies.Said(lines):
                log.write(lines)
            case remedies.Ended(error):
                self._over(error)

    def _over(self, error: WizardError | None) -> None:
        if isinstance(self.app.screen, ConfirmModal):
            self.app.screen.dismiss(False)
        if error is None:
            self.phase = "done"
            self._tell(f"{DONE} Done. What it changed is looked at again when you go back.", "done")
        elif isinstance(error, Cancelled):
            self.phase = "stopped"
            self._tell(f"{WARNING} {for_screen(error)}", "stopped")
        else:
            self.phase = "failed"
            self._tell(f"{FAILED} {for_screen(error)}", "failed")
        self.refresh_bindings()
        if (go := self._afterwards) is not None:
            self._afterwards = None
            go()

    # --- leaving ---------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what makes sense now."""
        match action:
            case "run":
                return self.phase == "asking"
            case "stop":
                return self.running
        return super().check_action(action, parameters)

    def action_stop(self) -> None:
        """Ask, then stop."""
        self.leaving(lambda: None)

    def leaving(self, go: Callable[[], Any]) -> None:
        """Somebody wants to leave: a command at work is stopped first, after a question."""
        if not self.running:
            go()
            return

        def answered(answer: bool | None) -> None:
            if not answer:
                return
            if not self.running:  # it ended while the question stood
                go()
                return
            self._afterwards = go
            self._cancel.set()
            self._tell(f"{WARNING} Stopping.", "stopped")

        self.app.push_screen(
            ConfirmModal(
                "Stop the command?", "What it has done until now stays.", yes="Stop", no="Keep running"
            ),
            answered,
        )

    def action_close(self) -> None:
        """Back to the toolchain."""
        self.leaving(self._close)

    def _close(self) -> None:
        if self.is_current:
            self.dismiss(self.phase != "asking")

    def action_copy(self) -> None:
        """The commands, and what they said."""
        text = "\n".join([*self._remedy.commands, self.query_one(LogPane).text()]).strip()
        self.app.copy_to_clipboard(text)
        self.notify("Copied the commands and their output.", markup=False)
