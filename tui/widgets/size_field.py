"""A number of tokens: a field, the sizes worth trying beside it, its limits or its problem below."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, VerticalGroup
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static
from textual.widgets.input import Selection

from tui.sizes import step_from


class SizeInput(Input):
    """An Input for digits that leaves letters to the keys of the screen; arrows step."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "step(True)", "More", show=False),
        Binding("down", "step(False)", "Less", show=False),
    ]

    @dataclass
    class Stepped(Message):
        """The next larger or smaller size is wanted."""

        up: bool

    def check_consume_key(self, key: str, character: str | None) -> bool:  # noqa: ARG002  Textual's parameters
        """Digits, and the minus of -1."""
        return character is not None and character in "0123456789-"

    def _on_key(self, event: events.Key) -> None:  # type: ignore[override]  # sync: nothing to wait for
        if event.is_printable and not self.check_consume_key(event.key, event.character):
            event.prevent_default()  # the screen's, not this field's

    def action_step(self, up: bool) -> None:
        """Step to the next size."""
        self.post_message(self.Stepped(up))


class SizeSteps(Static):
    """Sizes worth trying, to click on."""

    @dataclass
    class Picked(Message):
        """`size` was clicked."""

        size: int

    def show(self, sizes: Sequence[int]) -> None:
        """Draw `sizes`."""
        words = [Content.from_markup(f"[@click=pick({size})]{size:,}[/]") for size in sizes]
        self.update(Content("  ").join(words))

    def action_pick(self, size: int) -> None:
        """Tell the field."""
        self.post_message(self.Picked(size))


class SizeField(VerticalGroup):
    """A labelled number of tokens."""

    @dataclass
    class Changed(Message):
        """Another text was typed, stepped to or clicked."""

        field: str
        text: str

    def __init__(self, field: str, title: str) -> None:
        super().__init__(classes="box", id=f"field-{field}")
        self._field = field
        self._steps: tuple[int, ...] = ()
        self._default = 0
        self.border_title = title

    def compose(self) -> ComposeResult:
        """The field with its steps, and the line below."""
        with HorizontalGroup():
            yield SizeInput(restrict=r"-?[0-9]*", max_length=10, select_on_focus=True)
            yield SizeSteps()
        yield Static(classes="told", markup=False)

    @property
    def text(self) -> str:
        """What the field holds."""
        return self.query_one(SizeInput).value

    def set_text(self, text: str) -> None:
        """Put `text` into the field; nobody is told."""
        field = self.query_one(SizeInput)
        if field.value != text:
            with field.prevent(Input.Changed):
                field.value = text
                # As when it gets the focus: what is typed next replaces it.
                field.selection = Selection(0, len(text)) if field.has_focus else Selection.cursor(len(text))

    def show(self, *, default: int, steps: Sequence[int], limits: str, problem: str) -> None:
        """Draw what an empty field comes to, the sizes worth trying, and limits or problem."""
        self._default, self._steps = default, tuple(steps)
        self.query_one(SizeInput).placeholder = str(default) if default > 0 else "none"
        self.query_one(SizeSteps).show(self._steps)
        told = self.query_one(".told", Static)
        told.update(problem or limits)
        told.set_class(bool(problem), "error")
        told.set_class(not problem, "muted")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self._field, event.value))

    @on(SizeInput.Stepped)
    def _stepped(self, event: SizeInput.Stepped) -> None:
        event.stop()
        text = self.text.strip()
        current = int(text) if text.lstrip("-").isdigit() else self._default
        if self._steps:
            self.query_one(SizeInput).value = str(step_from(current, self._steps, event.up))

    @on(SizeSteps.Picked)
    def _picked(self, event: SizeSteps.Picked) -> None:
        event.stop()
        self.query_one(SizeInput).value = str(event.size)
        self.query_one(SizeInput).focus()
