"""The step Result: what was made, that it was checked, and what to do with it."""

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.backends.base import shell_line
from engine.errors import WizardError
from engine.events import Check, RunEnded
from engine.headless import duration, grouped
from engine.run import receipt
from engine.run.workspace import RECEIPT_NAME
from tui.draft import Draft
from tui.screens import save
from tui.screens.run import NOTE, RunRecord
from tui.screens.step import StepScreen
from tui.symbols import DONE, ELLIPSIS, FAILED


class FileList(Static):
    """Names on the left, sizes on the right; all shards of the weights are one row."""

    def __init__(self, ended: RunEnded) -> None:
        super().__init__(classes="box", id="files", markup=False)
        self._files = list(grouped(ended.files, ELLIPSIS))

    def render(self) -> Content:
        """One row a file."""
        width = self.content_size.width
        return Content("\n").join(self._row(name, size, width) for name, size in self._files)

    @staticmethod
    def _row(name: str, size: str, width: int) -> Content:
        room = max(width - len(size) - 2, 8)
        shown = name if len(name) <= room else name[: room - 1] + ELLIPSIS
        return Content.assemble(f"{shown:<{room}}  ", (size, "$foreground-muted"))


class CommandList(OptionList, inherit_bindings=False):
    """Commands to copy; the keys for pages are left to the whole."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Down", show=False),
        Binding("up,k", "cursor_up", "Up", show=False),
        Binding("enter", "select", "Copy", show=False),
    ]


class ResultScreen(StepScreen):
    """What the last run made."""

    STEP = "result"
    HELP = """
## Result

The export is in the folder above the files. It was verified: every check says what was found. On a
machine that can run the target it has also generated tokens, and they were the right ones.

- **ctrl+s** saves a preset that makes these files again, byte for byte, with `mlc-wizard --preset NAME`
- **c** copies the folder's path; **enter** on a command copies the command
- **n** begins another export; **escape** shows the run and its log
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save preset", tooltip="A preset that makes these files again"),
        Binding("n", "new", "New export", tooltip="Begin another export"),
        Binding("c", "copy", "Copy path", tooltip="Copy the path of the export"),
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
    }
    """

    def compose_body(self) -> ComposeResult:
        """Files, commands, checks."""
        ended = self._ended
        if ended is None:
            yield Static("Nothing was exported yet.", classes="muted")
            return
        yield Static(f"{DONE} Exported in {duration(ended.seconds)}", id="done", markup=False)
        yield Static(ended.output, id="where", markup=False)
        files = FileList(ended)
        files.border_title = f"{len(ended.files)} files"
        yield files
        with VerticalScroll(classes="box", id="next", can_focus=False) as following:
            following.border_title = "Next"
            following.border_subtitle = "enter copies"
            yield CommandList(id="commands", compact=True, markup=False)
            if any(name.endswith(".wasm") for name, _ in ended.files):
                yield Static(
                    f"{RECEIPT_NAME} holds the record for WebLLM's model_list.", id="record", markup=False
                )
        checks = Static(_checks(ended.checks), classes="box", id="checks", markup=False)
        passed = sum(check.passed for check in ended.checks)
        checks.border_title = f"{passed} of {len(ended.checks)} checks passed"
        yield checks

    def on_enter(self) -> None:
        """The commands have the focus; the whole scrolls."""
        if self._ended is not None:
            self._list_commands()
            self.query_one("#commands").focus()

    @property
    def _ended(self) -> RunEnded | None:
        record = self.draft.notes.get(NOTE)
        ended = record.state.ended if isinstance(record, RunRecord) else None
        return ended if ended is not None and ended.outcome == "done" else None

    def _list_commands(self) -> None:
        assert self._ended is not None
        commands = [("check it again, anywhere", ["mlc-wizard", "verify", self._ended.output])]
        if self.draft.preset:
            commands.append(("make it again", ["mlc-wizard", "--preset", self.draft.preset]))
        options = [
            Option(
                Content.assemble((f"{told}: ", "$foreground-muted"), shell_line(argv)), id=shell_line(argv)
            )
            for told, argv in commands
        ]
        chosen = self.query_one("#commands", OptionList)
        chosen.clear_options()
        chosen.add_options(options)
        chosen.highlighted = 0

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """There is no step after this one."""
        if action in ("save", "copy"):
            return self._ended is not None
        return False if action == "next" else super().check_action(action, parameters)

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
        save.offer(self, plan, saved=self._saved)

    def _saved(self, path: Path) -> None:
        self.draft.preset = path.stem
        self._list_commands()


def _checks(checks: tuple[Check, ...]) -> Content:
    return Content("\n").join(
        Content.assemble(
            (f"{DONE} " if check.passed else f"{FAILED} ", "$success" if check.passed else "$error"),
            f"{check.name}: ",
            (check.found, "$foreground-muted"),
        )
        for check in checks
    )
