"""A question before something that cannot be taken back."""

from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class ConfirmModal(ModalScreen[bool]):
    """`title`, `message` and two buttons; True only for an explicit yes.

    No has the focus, and escape or a click beside the question mean it too.
    """

    HELP = """
## A question

**y** or the first button does it; **n**, **escape** or a click beside it leave everything as it is.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", show=False),
        Binding("n,escape", "answer(False)", "No", show=False),
        Binding("left,right,up,down", "other", "Other button", show=False),
    ]
    DEFAULT_CSS = """
    ConfirmModal {
        align: center middle;
        background: $background 60%;
        & > Vertical {
            width: 64;
            max-width: 96%;
            height: auto;
            max-height: 90%;
            border: round $warning;
            border-title-color: $text-warning;
            background: $surface;
            padding: 1 2;
        }
        & #buttons { height: auto; margin: 1 0 0 0; align-horizontal: right; }
        & Button { margin: 0 0 0 2; min-width: 8; width: auto; }
    }
    """

    def __init__(self, title: str, message: str, *, yes: str, no: str) -> None:
        super().__init__()
        self._title = title
        self._message = message
        self._labels = yes, no

    def compose(self) -> ComposeResult:
        """The question."""
        yes, no = self._labels
        with Vertical() as frame:
            frame.border_title = self._title
            yield Static(self._message, markup=False)
            with Horizontal(id="buttons"):
                yield Button(f"y  {yes}", variant="warning", id="yes", compact=True)
                yield Button(f"n  {no}", id="no", compact=True)

    def on_mount(self) -> None:
        """No is what enter means."""
        self.query_one("#no", Button).focus()

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """A button answers."""
        event.stop()
        self.action_answer(event.button.id == "yes")

    def on_click(self, event: events.Click) -> None:
        """A click beside the question means no."""
        if event.widget is self:
            self.action_answer(False)

    def action_answer(self, answer: bool) -> None:
        """Say so."""
        if self.is_current:
            self.dismiss(answer)

    def action_other(self) -> None:
        """Arrows go between the two."""
        self.focus_next()
