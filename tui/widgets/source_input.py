"""The field that names a model: completes folders, models that are here, and known Hub ids."""

import asyncio
import os
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.suggester import Suggester
from textual.widgets import Input

from engine import paths
from engine.errors import UsageError

_MOST_ENTRIES = 5000


class SourceSuggester(Suggester):
    """Suggests folders for what looks like a path, else one of `names`."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.names: tuple[str, ...] = ()

    async def get_suggestion(self, value: str) -> str | None:
        """The completion of `value`, or None."""
        for name in self.names:
            if value and name.startswith(value) and name != value:
                return name
        return await asyncio.to_thread(complete_folder, value)


def complete_folder(text: str) -> str | None:
    """`text` with its last part completed to the first folder of that name, and a separator after it."""
    separator = os.sep if os.sep in text or os.altsep is None or os.altsep not in text else os.altsep
    parent, _, start = text.rpartition(separator)
    looks_like_path = bool(parent) or text.startswith((separator, "~", "."))
    if not looks_like_path or (start == "" and not text.endswith(separator)):
        return None
    try:
        base = paths.expanded(f"{parent}{separator}" if parent or text.startswith(separator) else ".")
        with os.scandir(base) as entries:
            names = sorted(
                entry.name
                for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False)
                if entry.name.startswith(start)
                and (start.startswith(".") or not entry.name.startswith("."))
                and entry.is_dir()
            )
    except (OSError, ValueError, UsageError):
        return None
    if not names:
        return None
    return f"{text[: len(text) - len(start)]}{names[0]}{separator}"


class SourceInput(Input):
    """An input whose tab takes the completion, and goes on where there is none."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "Complete", show=False, tooltip="Take the completion, or go on"),
        Binding("down", "screen.focus_next", "Next field", show=False),
    ]

    def action_complete(self) -> None:
        """Take the completion; where there is none, go on to the next field."""
        if self._suggestion and self.cursor_position == len(self.value):
            self.action_cursor_right()
        else:
            self.screen.focus_next()
