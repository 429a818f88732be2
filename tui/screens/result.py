"""The step Result: what was made, that it was checked, and what to do with it."""

import threading
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import OptionList, Static

from engine.errors import Cancelled, WizardError
from engine.events import Check, RunEnded
from engine.headless import duration, record_told
from engine.run import receipt, verification
from tui import opening
from tui.draft import Draft
from tui.messages import FolderRefused, VerifyEnded, VerifySaid
from tui.screens import save
from tui.screens.run import NOTE, RunRecord, RunScreen
from tui.screens.step import StepScreen
from tui.symbols import DONE
from tui.widgets.export_lists import CheckList, CommandList, FileList, Verification


class ResultScreen(StepScreen):
    """What the last run made."""

    STEP = "result"
    HELP = """
## Result

The export is in the folder above the files. It was verified: every check says what was found. On a
machine that can run the target it has also generated tokens, and they were the right ones.

- **ctrl+s** saves a preset that makes these files again, byte for byte, with `mlc-wizard --preset NAME`
- **v** verifies the files once more, as `mlc-wizard verify` does anywhere; **r** runs the export again,
  redoing the stages of what is damaged
- **o** opens the folder, **c** copies its path; **enter** on a command copies the command
- **n** begins another export; **escape** shows the run and its log
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save preset", tooltip="A preset that makes these files again"),
        Binding("v", "verify", "Verify", tooltip="Check the files again"),
        Binding("o", "open", "Open", tooltip="Show the folder in the file manager"),
        Binding("c", "copy", "Copy path", tooltip="Copy the path of the export"),
        Binding("r", "rerun", "Run again", show=False, tooltip="Run again, redoing what is damaged"),
        Binding("n", "new", "New", tooltip="Begin another export"),
        Binding("p", "plan", "Plan", show=False),
        Binding("pagedown,space", "scroll(1)", "Down", show=False),
        Binding("pageup", "scroll(-1)", "Up", show=False),
    ]
    DEFAULT_CSS = """
    ResultScreen {
        #done { color: $text-success; text-style: bold; padding: 0 1; height: auto; }
        #where { padding: 0 1; height: auto; color: $foreground-muted; }
        #commands { height: auto; background: transparent; }
        #record { color: $foreground-muted; height: auto; }
        #next { height: auto; }
        #checks.-failed { border: round $error; border-title-color: $text-error; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._cancel = threading.Event()

    def compose_body(self) -> ComposeResult:
        """Files, commands, checks."""
        ended = self._ended
        if ended is None:
            yield Static("Nothing was exported yet.", classes="muted")
            return
        yield Static(f"{DONE} Exported in {duration(ended.seconds)}", id="done", markup=False)
        yield Static(ended.output, id="where", markup=False)
        yield FileList(ended)
        with VerticalScroll(classes="box", id="next", can_focus=False) as following:
            following.border_title = "Next"
            following.border_subtitle = "enter copies"
            yield CommandList()
            if record := record_told(ended):
                yield Static(record, id="record", markup=False)
        yield CheckList(classes="box", id="checks")

    def on_enter(self) -> None:
        """The commands have the focus; the whole scrolls."""
        if self._ended is not None:
            self._list_commands()
            self.query_one(CommandList).focus()
            self._tell_checks()

    def on_unmount(self) -> None:
        """Nobody is left to see what is being verified; the next visit shows what the run found."""
        self._cancel.set()
        if self._ended is not None and self._verification.running:
            assert self._record is not None
            self._record.verification = None

    @property
    def _record(self) -> RunRecord | None:
        record = self.draft.notes.get(NOTE)
        return record if isinstance(record, RunRecord) else None

    @property
    def _ended(self) -> RunEnded | None:
        ended = self._record.state.ended if self._record else None
        return ended if ended is not None and ended.outcome == "done" else None

    @property
    def _verification(self) -> Verification:
        """The latest: that of the run, or the one asked for here."""
        assert self._record is not None
        assert self._ended is not None
        if self._record.verification is None:
            self._record.verification = Verification(checks=list(self._ended.checks))
        return self._record.verification

    def _list_commands(self) -> None:
        assert self._ended is not None
        commands = [("check it again, anywhere", ["mlc-wizard", "verify", self._ended.output])]
        if self._record is not None and self._record.preset:
            commands.append(("make it again", ["mlc-wizard", "--preset", self._record.preset]))
        self.query_one(CommandList).show(commands)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is no step after this one, and nothing to do without an export."""
        if action in ("save", "copy", "open", "rerun"):
            return self._ended is not None
        if action == "verify":
            return self._ended is not None and not self._verification.running
        return False if action == "next" else super().check_action(action, parameters)

    # --- verify again ----------------------------------------------------------------------------

    def action_verify(self) -> None:
        """Check the files again, in a child of their own."""
        assert self._record is not None
        assert self._ended is not None
        self._cancel = threading.Event()
        self._record.verification = Verification(at=f"{RunScreen.wall_clock():%H:%M}", running=True)
        self._tell_checks()
        self._show_checks()
        self._verify(Path(self._ended.output), self._cancel)

    @work(thread=True, exit_on_error=False, group="verify")
    def _verify(self, output: Path, cancel: threading.Event) -> None:
        error: WizardError | None = None
        try:
            for said in verification.verify(output, cancel):
                if isinstance(said, Check):
                    self.post_message(VerifySaid(said))
        except WizardError as raised:
            error = raised
        self.post_message(VerifyEnded(error))

    @on(VerifySaid)
    def _said(self, message: VerifySaid) -> None:
        self._verification.checks.append(message.check)
        self._tell_checks()

    @on(VerifyEnded)
    def _verified(self, message: VerifyEnded) -> None:
        if isinstance(message.error, Cancelled):
            return
        found = self._verification
        found.running, found.error = False, message.error
        self._tell_checks()
        self._show_checks()
        passed = found.outcome == "passed"
        self.notify(found.title(), severity="information" if passed else "error", markup=False)

    def _tell_checks(self) -> None:
        self.query_one(CheckList).tell(self._verification)
        self.refresh_bindings()

    def _show_checks(self) -> None:
        """Where they can be seen, once they have their height."""
        checks = self.query_one(CheckList)
        self.call_after_refresh(checks.scroll_visible, top=True, animate=False)

    def action_rerun(self) -> None:
        """Run again: finished stages are skipped, where their files are as they were."""
        self.draft.notes.pop(NOTE, None)
        self.wizard.go("run")

    # --- the folder and the commands -------------------------------------------------------------

    @work(thread=True, exit_on_error=False, group="open")
    def action_open(self) -> None:
        """Show the folder in the file manager."""
        assert self._ended is not None
        try:
            opening.open_folder(Path(self._ended.output))
        except WizardError as error:
            self.post_message(FolderRefused(error))

    @on(FolderRefused)
    def _not_opened(self, message: FolderRefused) -> None:
        """The path is the next best thing."""
        assert self._ended is not None
        self.app.copy_to_clipboard(self._ended.output)
        self.notify(f"{message.error.what}\nCopied {self._ended.output}", severity="warning", markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Copy the command."""
        event.stop()
        self.app.copy_to_clipboard(event.option_id or "")
        self.notify(f"Copied: {event.option_id}", markup=False)

    def action_copy(self) -> None:
        """Copy the path of the export."""
        assert self._ended is not None
        self.app.copy_to_clipboard(self._ended.output)
        self.notify(f"Copied {self._ended.output}", markup=False)

    def action_scroll(self, pages: int) -> None:
        """Through what does not fit."""
        body = self.query_one("#body", VerticalScroll)
        (body.scroll_page_down if pages > 0 else body.scroll_page_up)()

    def action_new(self) -> None:
        """Another export."""
        self.wizard.begin(Draft())

    def action_save(self) -> None:
        """Save the plan as it was run, with the revision of the model that was fetched."""
        assert self._ended is not None
        try:
            plan = receipt.plan_of(Path(self._ended.output))
        except WizardError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        save.offer(self, plan, self.draft.preset, saved=self._saved)

    def _saved(self, path: Path) -> None:
        assert self._record is not None
        self._record.preset = path.stem
        if self._record.state.plan == self.draft.plan():
            self.draft.saved_as(path.stem)
        self._list_commands()
