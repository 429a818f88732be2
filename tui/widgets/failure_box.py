"""What went wrong in a run, why, and what to do about it."""

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Button, Static

from engine.errors import Cancelled
from tui.run_state import RunState
from tui.symbols import ARROW, FAILED, WARNING
from tui.widgets.rows import Mark, Marks

EDIT = {"": "e  Edit plan", "output": "e  Other folder", "compile": "e  Weights only"}
"""What the last button is called, by what the remedy turns at."""


class FailureBox(VerticalScroll, can_focus=False):
    """Hidden until there is a failure or a stop; its buttons have the names of the screen's actions."""

    DEFAULT_CSS = """
    FailureBox {
        display: none;
        height: auto;
        max-height: 60%;
        border: round $error;
        border-title-color: $text-error;
        padding: 0 1;
        scrollbar-size-vertical: 1;
        &.-stopped { border: round $warning; border-title-color: $text-warning; }
        & > #what { text-style: bold; }
        & > #why { color: $foreground-muted; }
        & > #remedy { color: $text-accent; }
        & > Static { height: auto; }
        & > .-empty { display: none; }
        & > Horizontal { height: auto; }
        & Button { margin: 0 2 0 0; min-width: 10; width: auto; }
    }
    """

    def compose(self) -> ComposeResult:
        """Three parts and what can be done."""
        yield Static("", id="what", markup=False)
        yield Static("", id="why", markup=False)
        yield Marks(id="remedy")
        with Horizontal():
            yield Button("r  Retry", variant="primary", id="retry", compact=True)
            yield Button("R  Run all again", id="fresh", compact=True)
            yield Button(EDIT[""], id="edit", compact=True)

    def show(self, state: RunState) -> None:
        """Show how `state` ended, or nothing where all is well."""
        failure = state.failure if not state.active else None
        self.display = failure is not None
        if failure is None:
            return
        stage = state.failed
        stopped = state.phase == "cancelled"
        where = stage.label if stage else "the run"
        self.set_class(stopped, "-stopped")
        self.border_title = f"{WARNING} Stopped" if stopped else f"{FAILED} {_capital(where)} failed"
        if stopped:
            failure = Cancelled(f"Stopped in {where}.", remedy=failure.remedy, fix=failure.fix)
        for name, text in (("what", failure.what), ("why", failure.why)):
            part = self.query_one(f"#{name}", Static)
            part.update(text)
            part.set_class(not text, "-empty")
        remedy = failure.remedy  # the keys for it are on the buttons
        self.query_one(Marks).show([Mark(ARROW, remedy)] if remedy else [])
        self.query_one(Marks).set_class(not remedy, "-empty")
        self.query_one("#edit", Button).label = EDIT.get(failure.fix, EDIT[""])
        self.query_one("#retry", Button).label = "r  Retry from here" if stage else "r  Retry"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
