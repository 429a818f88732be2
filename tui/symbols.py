"""The characters beside letters that the screens use, and ASCII in their stead where a terminal lacks them.

State is told by a symbol and a word, never by colour alone.
"""

import sys
from typing import TextIO

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

DONE, RUNNING, WAITING, FAILED, WARNING = "✓", "●", "○", "✗", "▲"
CHOSEN, CUT, ELLIPSIS, ARROW, DOT = "›", "‹", "…", "→", "·"  # noqa: RUF001  glyphs, not letters

# One column for one column, so that nothing moves.
_ASCII = {
    **dict(zip("✓●○✗▲›‹…→·≈↑↓←▶▼◀•–—×", "v*ox!><~>-~^v<>v<*--x", strict=True)),  # noqa: RUF001  glyphs
    **dict.fromkeys("─━═╌╍┄┅┈┉╸╺╴╶▁▔", "-"),
    **dict.fromkeys("│┃║▏▕▎▌▐╎╏", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬┏┓┗┛┣┫┳┻╋", "+"),
    **dict.fromkeys("█▇▆▅▄▃▂▀▉▊▋▍▓▒░", "#"),
    **dict.fromkeys("╱╲", "/"),  # noqa: RUF001  glyphs
}
_TABLE = str.maketrans(_ASCII)


def needs_ascii(stream: TextIO | None = None) -> bool:
    """Whether the encoding of `stream`, by default the one Textual draws to, lacks what the screens need."""
    encoding = getattr(stream or sys.__stderr__, "encoding", None) or "ascii"
    try:
        "✓╭━▲…█".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def to_ascii(text: str) -> str:
    """`text` in ASCII, as wide as before where every character takes one column."""
    return text.translate(_TABLE).encode("ascii", "replace").decode("ascii")


class AsciiFilter(LineFilter):
    """Every line in ASCII, whichever widget drew it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002  Textual's parameters
        """The segments with their text replaced."""
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
