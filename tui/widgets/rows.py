"""What things are, and how much: labels and values in two columns, set anew for every width."""

from collections.abc import Sequence
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
