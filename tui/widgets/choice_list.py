"""A list of which one is chosen: moving chooses, enter goes on, what cannot be had says why."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui import symbols

_GAP = 2
_HEADING = "--heading"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One row. `figures` are set in columns at the right, the last the first to go where it is narrow.

    `refused` says why it cannot be chosen, in the place of figures that nobody will have; `mark` what to
    think of first where it can.
    """

    name: str
    sentence: str
    figures: tuple[str, ...] = ()
    refused: str = ""
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How rows are set: `name`, `figures` and `tail` (of the marks) are widths of columns.

    `beside` is one line, else two.
    """

    width: int
    name: int
    figures: tuple[int, ...]
    tail: int
    beside: bool


def layout(choices: Sequence[Choice], heading: Sequence[str], width: int, *, beside: bool) -> Layout:
    """The layout of `choices` in `width` columns: as many columns of figures as fit.

    With `beside`, room for twelve letters of the sentence is kept where there are any.
    """
    name = max((len(choice.name) for choice in choices), default=0)
    mark = max((len(choice.mark) for choice in choices), default=0)
    tail = mark + 2 + _GAP if mark else 0
    sentence = 12 if any(choice.sentence for choice in choices) else 0
    room = width - name - 2 - tail - (sentence + _GAP if beside else 0)
    columns: list[int] = []
    table = [choice.figures for choice in choices] + ([tuple(heading)] if heading else [])
    for texts in zip(*table, strict=True):
        column = max(map(len, texts))
        if room < column + _GAP:
            break
        room -= column + _GAP
        columns.append(column)
    return Layout(width=width, name=name, figures=tuple(columns), tail=tail, beside=beside)


def _figures(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{'':{_GAP}}{text:>{width}}" for text, width in zip(texts, widths, strict=False))


def headline(heading: Sequence[str], lay: Layout) -> Content:
    """What the figures are, above them."""
    figures = _figures(heading, lay.figures)
    before = lay.width - lay.tail - len(figures) if lay.beside else lay.name + 2
    return Content.styled(f"{'':{max(before, 0)}}{figures}", "$foreground-muted")


def row(choice: Choice, lay: Layout, *, chosen: bool) -> Content:
    """`choice` as one line with its sentence beside its name, or as two with the sentence below."""
    bullet = symbols.RUNNING if chosen else symbols.FAILED if choice.refused else symbols.WAITING
    mark = f"{symbols.WARNING} {choice.mark}" if choice.mark else ""
    figures = _figures(choice.figures, lay.figures)
    tail = f"{'':{_GAP}}{mark}" if mark else ""
    head = f"{bullet} {choice.name:{lay.name}}"
    sentence = choice.refused or choice.sentence
    quiet = "$foreground-muted"
    style = quiet if choice.refused else "bold" if chosen else ""
    if lay.beside and choice.refused:
        what = choice.refused.removeprefix(f"{choice.name} ").partition(". ")[0].removesuffix(".")
        return Content.styled(shortened(f"{head}{'':{_GAP}}{what}", lay.width), quiet)
    if lay.beside:
        tail = f"{tail:{lay.tail}}"
        room = max(lay.width - len(head) - len(figures) - len(tail) - _GAP, 0)
        told = shortened(sentence.removeprefix(f"{choice.name} "), room)
        return Content.assemble(
            (f"{head}{'':{_GAP}}", style), (f"{told:{room}}", quiet), figures, (tail, "$text-warning")
        )
    first = Content.assemble((head, style), (figures, style), (tail, "$text-warning"))
    below = [Content.styled(f"  {line}", quiet) for line in wrap(sentence, max(lay.width - 2, 1))]
    return Content("\n").join([first, *below])


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` columns."""
    return text if len(text) <= width else text[: max(width - 1, 0)].rstrip() + symbols.ELLIPSIS * (width > 0)


class ChoiceList(OptionList):
    """Rows of `Choice`, one of them chosen.

    Arrows, j and k move and choose; enter asks to go on. A refused row can be looked at: the
    choice stays where it was.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("enter", "accept", "Choose", show=False),
    ]

    @dataclass
    class Looked(Message):
        """The cursor is on `name`."""

        choices: "ChoiceList"
        name: str

        @property
        def control(self) -> "ChoiceList":
            """The list."""
            return self.choices

    class Chosen(Looked):
        """`name` was chosen."""

    class Accepted(Looked):
        """Enter on `name`, which is the one chosen."""

    def __init__(
        self,
        *,
        heading: Sequence[str] = (),
        beside: bool = False,
        id: str | None = None,  # noqa: A002  Textual's name
    ) -> None:
        super().__init__(id=id, markup=False, classes="box")
        self._heading = tuple(heading)
        self._beside = beside
        self._choices: tuple[Choice, ...] = ()
        self._chosen = ""

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The rows."""
        return self._choices

    @property
    def chosen(self) -> str:
        """The name of the chosen row; empty where there is none."""
        return self._chosen

    @property
    def looked_at(self) -> str:
        """The name of the row under the cursor; empty where there is none."""
        option = self.highlighted_option
        return (option.id or "") if option is not None else ""

    def show(self, choices: Sequence[Choice], chosen: str) -> None:
        """Draw `choices`; the cursor is on the chosen one, but where somebody moves it."""
        if (tuple(choices), chosen) == (self._choices, self._chosen):
            return
        cursor = (self.looked_at if self.has_focus else "") or chosen
        self._choices, self._chosen = tuple(choices), chosen
        self._draw(cursor)

    def _draw(self, cursor: str) -> None:
        width = self.scrollable_content_region.width
        if not self._choices or width <= 0:
            return
        lay = layout(self._choices, self._heading, width, beside=self._beside)
        rows = {c.name: row(c, lay, chosen=c.name == self._chosen) for c in self._choices}
        if self._heading and lay.figures:
            rows = {_HEADING: headline(self._heading, lay), **rows}
        if [option.id for option in self.options] != list(rows):
            self.set_options(Option(text, id=name, disabled=name == _HEADING) for name, text in rows.items())
        else:
            for name, text in rows.items():
                self.replace_option_prompt(name, text)
        with self.prevent(OptionList.OptionHighlighted):
            self.highlighted = self.get_option_index(cursor if cursor in rows else self._choices[0].name)
        self.call_after_refresh(self.scroll_to_highlight)  # where a low window does not show all

    def on_resize(self) -> None:
        """Columns depend on the width."""
        self._draw(self.looked_at or self._chosen)

    def action_accept(self) -> None:
        """Go on, where the row under the cursor can be had."""
        choice = next((c for c in self._choices if c.name == self.looked_at), None)
        if choice is None:
            return
        if choice.refused:
            self.notify(choice.refused, severity="warning", markup=False)
        elif choice.name == self._chosen:
            self.post_message(self.Accepted(self, choice.name))
        else:
            self.post_message(self.Chosen(self, choice.name))

    @on(OptionList.OptionHighlighted)
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        choice = next((c for c in self._choices if c.name == event.option_id), None)
        if choice is None:
            return
        self.post_message(self.Looked(self, choice.name))
        if not choice.refused and choice.name != self._chosen:
            self.post_message(self.Chosen(self, choice.name))

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()  # a click moves, and moving chose
