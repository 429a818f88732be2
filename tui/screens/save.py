"""Save the plan as a preset of the user's."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Button, Input, Static

from engine import preset
from engine.errors import WizardError
from engine.model import source as model_source
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan, with_defaults
from engine.shell import shell_line
from tui.screens.confirm import ConfirmModal
from tui.symbols import FAILED, WARNING


class SaveModal(ModalScreen[Path | None]):
    """Asks for a name and saves `plan` under it; the file, or None where nothing was saved.

    A name that cannot be one is told while it is typed; one that is taken is asked about.
    """

    HELP = """
## Save as a preset

A preset is a small text file with every choice of this export. It goes to your presets folder, where
`mlc-wizard --preset NAME` finds it; the same versions make the same files of it, byte for byte.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False),
        Binding("ctrl+s", "save", "Save", show=False),
    ]
    DEFAULT_CSS = """
    SaveModal {
        align: center middle;
        background: $background 60%;
        & > Vertical {
            width: 72;
            max-width: 96%;
            height: auto;
            max-height: 90%;
            border: round $border;
            border-title-color: $primary;
            background: $surface;
            padding: 1 2;
        }
        & .label { color: $foreground-muted; }
        & Input { margin: 0 0 1 0; width: 1fr; background: $background; }
        & #told { height: auto; min-height: 2; color: $foreground-muted; }
        & #told.-problem { color: $text-error; }
        & #told.-warning { color: $text-warning; }
        & #buttons { height: auto; margin: 1 0 0 0; align-horizontal: right; }
        & Button { margin: 0 0 0 2; }
        &.-low {
            & > Vertical { max-height: 100%; padding: 0 1; }
            & Input { margin: 0; }
            & #buttons { display: none; }  /* enter and escape do */
        }
    }
    """

    def __init__(self, plan: ExportPlan, name: str = "") -> None:
        super().__init__()
        self._plan = plan
        self._name = name if _is_own(name) else suggested_name(plan)

    def compose(self) -> ComposeResult:
        """Name, description, what will happen, two buttons."""
        with Vertical() as frame:
            frame.border_title = "Save preset"
            yield Static("Name", classes="label")
            yield Input(self._name, placeholder="gemma-270m-web", id="name", compact=True)
            yield Static("Description", classes="label")
            yield Input(
                self._plan.description, placeholder="one line for the list", id="description", compact=True
            )
            yield Static("", id="told", markup=False)
            with Horizontal(id="buttons"):
                yield Button("enter  Save", variant="primary", id="save", compact=True)
                yield Button("esc  Cancel", id="cancel", compact=True)

    def on_mount(self) -> None:
        """The name is to be typed over."""
        name = self.query_one("#name", Input)
        name.focus()
        name.select_all()
        self._tell()

    def on_click(self, event: events.Click) -> None:
        """A click beside the dialog closes it."""
        if event.widget is self:
            self.action_cancel()

    @on(Input.Changed)
    def changed(self) -> None:
        """Say what a save would do."""
        self._tell()

    @on(Input.Submitted)
    def submitted(self) -> None:
        """Enter saves, from either field."""
        self.action_save()

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """Save or cancel."""
        event.stop()
        if event.button.id == "save":
            self.action_save()
        else:
            self.action_cancel()

    def action_cancel(self) -> None:
        """Save nothing."""
        if self.is_current:
            self.dismiss(None)

    def action_save(self) -> None:
        """Save, after a question where a preset would be replaced."""
        if not self.is_current:
            return
        try:
            path = self._path()
        except WizardError as error:
            self._say(f"{FAILED} {error}", "-problem")
            self.query_one("#name", Input).focus()
            return
        if not path.exists():
            self._write(path)
            return

        def answered(answer: bool | None) -> None:
            if answer:
                self._write(path)

        self.app.push_screen(
            ConfirmModal("Replace the preset?", f"{path} is there already.", yes="Replace it", no="Keep it"),
            answered,
        )

    def _write(self, path: Path) -> None:
        description = self.query_one("#description", Input).value.strip()
        try:
            preset.save(dataclasses.replace(self._plan, description=description), path)
        except WizardError as error:
            self._say(f"{FAILED} {error}", "-problem")
            return
        self.dismiss(path)

    def _path(self) -> Path:
        return preset.place_of(self.query_one("#name", Input).value.strip())

    def _tell(self) -> None:
        try:
            path = self._path()
        except WizardError as error:
            self._say(f"{FAILED} {error.what} {error.why}", "-problem")
            return
        if path.exists():
            self._say(f"{WARNING} {path} is there already; saving replaces it, after a question.", "-warning")
        elif (preset.shipped_folder() / path.name).is_file():
            self._say(f"{WARNING} {path.stem} comes with mlc-wizard; yours will be used instead.", "-warning")
        else:
            self._say(f"{path}\nReplay: {shell_line(['mlc-wizard', '--preset', path.stem])}", "")

    def _say(self, text: str, kind: str) -> None:
        told = self.query_one("#told", Static)
        told.update(text)
        told.set_class(kind == "-problem", "-problem")
        told.set_class(kind == "-warning", "-warning")


def _is_own(name: str) -> bool:
    """Whether there is a preset of the user's called `name`."""
    try:
        return preset.place_of(name).exists()
    except WizardError:
        return False


def suggested_name(plan: ExportPlan) -> str:
    """MODEL-QUANTIZATION-DEVICE, as a name of a preset can be."""
    model = re.split(r"[/\\:]", plan.source.rstrip("/\\"))[-1]
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model}-{plan.quantization}-{plan.device}")
    return text.lower()[-64:].strip("._-")


def replayable(plan: ExportPlan, facts: ModelFacts | None) -> ExportPlan:
    """`plan` as it means the same from any folder and in any later version: source and sizes settled."""
    plan = dataclasses.replace(plan, source=model_source.from_preset(plan.source, Path.cwd()))
    return with_defaults(plan, facts.max_context) if facts else plan


def offer(
    screen: Screen[Any], plan: ExportPlan, name: str = "", saved: Callable[[Path], None] | None = None
) -> None:
    """Ask on `screen` for a name, save `plan`, and say where; `saved` gets the file."""

    def done(path: Path | None) -> None:
        if path is not None:
            screen.notify(f"Saved as {path.stem}.", markup=False)
            if saved is not None:
                saved(path)

    screen.app.push_screen(SaveModal(plan, name), done)
