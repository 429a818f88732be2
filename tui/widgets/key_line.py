"""The keys of a screen on its last line: as many as fit, and always the one that tells all of them."""

from collections.abc import Iterator

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.widgets import Footer
from textual.widgets._footer import FooterKey  # not exported; Footer composes them

HELP = "help"


class KeyLine(Footer):
    """Textual's footer scrolls what does not fit out of sight, and Help stands near its end."""

    DEFAULT_CSS = """
    KeyLine {
        background: transparent;
        padding: 0 1;
    }
    """

    def __init__(self) -> None:
        super().__init__(compact=True, show_command_palette=False)

    def compose(self) -> ComposeResult:
        """Whole keys only; those of the focused widget come first, so the general ones go first."""
        keys = [key for key in super().compose() if isinstance(key, FooterKey)]
        room = self.app.size.width - 2
        spared = sum(_width(key) for key in keys if key.action == HELP)
        yield from _fitting(keys, room - spared)

    async def on_resize(self) -> None:
        """Another width, other keys."""
        await self.recompose()


def _width(key: FooterKey) -> int:
    """Cells that a key takes: its name, its description after a space, the margin behind."""
    return cell_len(key.key_display) + bool(key.description) + cell_len(key.description) + 1


def _fitting(keys: list[FooterKey], room: int) -> Iterator[FooterKey]:
    """`keys` as long as they fit into `room` cells, and Help, for which there is room besides."""
    full = False
    for key in keys:
        if key.action != HELP:
            room -= _width(key)
            # The margin of the last key may be cut.
            full = full or room < -1
            if full:
                continue
        yield key
