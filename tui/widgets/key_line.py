"""The keys of a screen on its last line: as many as fit, and always the one that tells all of them."""

from collections.abc import Iterator

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.widgets import Footer
from textual.widgets._footer import FooterKey  # not exported; Footer composes them

HELP = "help"
_CHARACTERS = {"slash": "/"}
"""What `textual.keys.key_to_character` has no answer for."""


class KeyLine(Footer):
    """Textual's footer scrolls what does not fit out of sight, and Help stands near its end.

    What a screen calls FIRST_KEYS, a tuple of actions, comes first, in that order.
    """

    DEFAULT_CSS = """
    KeyLine {
        background: transparent;
        padding: 0 1;
        &.-compact FooterKey { margin-right: 2; }
        &.-tight FooterKey { margin-right: 1; }
    }
    """

    def __init__(self) -> None:
        super().__init__(compact=True, show_command_palette=False)

    def compose(self) -> ComposeResult:
        """Whole keys only; those of the focused widget come first, so the general ones go first."""
        keys = [key for key in super().compose() if isinstance(key, FooterKey) and not self._is_text(key)]
        first: tuple[str, ...] = getattr(self.screen, "FIRST_KEYS", ())
        keys.sort(key=lambda key: first.index(key.action) if key.action in first else len(first))
        room = self.app.size.width - 2
        gap = 2 if sum(_width(key, 2) for key in keys) <= room + 2 else 1
        self.set_class(gap == 1, "-tight")
        spared = sum(_width(key, gap) for key in keys if key.action == HELP)
        yield from _fitting(keys, room - spared, gap)

    def _is_text(self, key: FooterKey) -> bool:
        """Whether the key is a letter where the focus is; Textual asks that of those that it knows."""
        focused, character = self.screen.focused, _CHARACTERS.get(key.key)
        return focused is not None and character is not None and focused.check_consume_key(key.key, character)

    async def on_resize(self) -> None:
        """Another width, other keys."""
        await self.recompose()


def _width(key: FooterKey, gap: int) -> int:
    """Cells that a key takes: its name, its description after a space, the gap behind."""
    return cell_len(key.key_display) + bool(key.description) + cell_len(key.description) + gap


def _fitting(keys: list[FooterKey], room: int, gap: int) -> Iterator[FooterKey]:
    """`keys` as long as they fit into `room` cells, and Help, for which there is room besides."""
    full = False
    for key in keys:
        if key.action != HELP:
            room -= _width(key, gap)
            # The gap behind the last key may be cut.
            full = full or room < -gap
            if full:
                continue
        yield key
