"""Labels and values in two columns, texts behind marks: set anew for every width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textual.content import Content
from textual.widgets import Static

from tui.describe import Row, broken

LABEL = 11


def columns(rows: Sequence[Row], width: int) -> list[Content]:
    """Rows as lines of at most `width` columns, what is longer continued below itself."""
    lines = []
    for label, value in rows:
        for number, part in enumerate(broken(value, max(width - LABEL, 8))):
            head = label if number == 0 else ""
            lines.append(Content.assemble((f"{head:{LABEL}}", "$foreground-muted"), part))
    return lines


class Rows(Static):
    """Rows of label and value."""

    def __init__(self, title: str, **kwargs: Any) -> None:
        super().__init__(classes="box", markup=False, **kwargs)
        self.border_title = title
        self._rows: tuple[Row, ...] = ()

    def show(self, rows: Sequence[Row]) -> None:
        """Draw `rows`."""
        self._rows = tuple(rows)
        self._draw()

    def on_resize(self) -> None:
        """What is long breaks elsewhere."""
        self._draw()

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        if width > 0:
            self.update(Content("\n").join(columns(self._rows, width)))


@dataclass(frozen=True)
class Mark:
    """A text behind a mark; `head` stands in front of it and is what it is about."""

    mark: str
    text: str
    style: str = ""
    head: str = ""

    def lines(self, width: int) -> list[Content]:
        """In lines of at most `width` columns, what is longer continued below the text, not the mark."""
        found: list[Content] = []
        left = len(self.head)
        quiet = "$foreground-muted" if self.head else ""
        indent = len(self.mark) + 1
        for paragraph in f"{self.head}{self.text}".splitlines():
            for line in broken(paragraph, max(width - indent, 8)):
                mark = f"{'' if found else self.mark:{indent}}"
                found.append(Content.assemble((mark, self.style), line[:left], (line[left:], quiet)))
                left = max(left - len(line) - 1, 0)
        return found


class Marks(Static):
    """Texts behind marks."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(markup=False, **kwargs)
        self._marks: tuple[Mark, ...] = ()

    def show(self, marks: Sequence[Mark]) -> None:
        """Draw `marks`."""
        self._marks = tuple(marks)
        self._draw()

    def on_resize(self) -> None:
        """What is long breaks elsewhere."""
        self._draw()

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        if width > 0:
            self.update(Content("\n").join(line for mark in self._marks for line in mark.lines(width)))
