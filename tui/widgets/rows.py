"""Labels and values in two columns, texts behind marks: set anew for every width."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui.describe import Row, broken

LABEL = 11
"""Columns of a label, at least: boxes beside each other have their values below each other."""

Item = TypeVar("Item")


def columns(rows: Sequence[Row], width: int) -> list[Content]:
    """Rows as lines of at most `width` columns, what is longer continued below itself."""
    lines = []
    left = max([LABEL, *(len(label) + 1 for label, _ in rows)])
    for label, value in rows:
        for number, part in enumerate(broken(value, max(width - left, 8))):
            head = label if number == 0 else ""
            lines.append(Content.assemble((f"{head:{left}}", "$foreground-muted"), part))
    return lines


class _Fitted(Static, Generic[Item]):
    """Items drawn as lines, anew for every width."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(markup=False, **kwargs)
        self._items: tuple[Item, ...] = ()

    def show(self, items: Sequence[Item]) -> None:
        """Draw `items`."""
        self._items = tuple(items)
        self._draw()

    def on_resize(self) -> None:
        """What is long breaks elsewhere."""
        self._draw()

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        if not self.display and isinstance(self.parent, Widget):  # so that it appears whole
            width = self.parent.scrollable_content_region.width - self.gutter.width
        if width > 0:
            self.update(Content("\n").join(self.lines(self._items, width)))

    def lines(self, items: Sequence[Item], width: int) -> Iterable[Content]:
        """`items` in lines of at most `width` columns."""
        raise NotImplementedError


class Rows(_Fitted[Row]):
    """Rows of label and value."""

    def __init__(self, title: str, **kwargs: Any) -> None:
        super().__init__(classes="box", **kwargs)
        self.border_title = title

    def lines(self, items: Sequence[Row], width: int) -> Iterable[Content]:
        """Labels on the left."""
        return columns(items, width)


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


class Marks(_Fitted[Mark]):
    """Texts behind marks."""

    def lines(self, items: Sequence[Mark], width: int) -> Iterable[Content]:
        """One below the other."""
        return (line for mark in items for line in mark.lines(width))
