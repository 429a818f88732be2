"""The program's own theme; Textual's can be chosen in the command palette."""

from textual.color import Color
from textual.theme import Theme

_LEGIBLE = 4.5
"""The least contrast of text, https://www.w3.org/TR/WCAG21/#contrast-minimum."""

WIZARD = Theme(
    name="mlc-wizard",
    primary="#6cb6c4",
    secondary="#8f9fd8",
    accent="#e3b273",
    warning="#e3b273",
    error="#e57373",
    success="#8cc084",
    foreground="#d7dce4",
    background="#0f1216",
    surface="#151a20",
    panel="#222a33",
    dark=True,
    variables={
        "border": "#6cb6c4",
        "border-blurred": "#36414d",
        "block-cursor-background": "#24404a",
        "block-cursor-foreground": "#f2f5f8",
        "block-cursor-blurred-background": "#1b232b",
        "block-cursor-blurred-foreground": "#d7dce4",
        "scrollbar": "#36414d",
        "scrollbar-hover": "#4b5a69",
        "scrollbar-active": "#6cb6c4",
        "scrollbar-background": "#0f1216",
        "scrollbar-background-hover": "#0f1216",
        "scrollbar-background-active": "#0f1216",
        "scrollbar-corner-color": "#0f1216",
        "input-selection-background": "#6cb6c4 35%",
    },
)


def legible(variables: dict[str, str]) -> dict[str, str]:
    """`variables` of a theme with the muted foreground only as muted as it can still be read."""
    foreground, background = (Color.parse(variables[name]) for name in ("foreground", "background"))
    if foreground.ansi is not None or background.ansi is not None:
        return variables  # the terminal's own colours, which nobody here knows
    for share in (0.6, 0.7, 0.8, 0.9):
        if contrast(background + foreground.with_alpha(share), background) >= _LEGIBLE:
            return {**variables, "foreground-muted": foreground.with_alpha(share).hex}
    return {**variables, "foreground-muted": foreground.hex}


def contrast(one: Color, other: Color) -> float:
    """How far two opaque colours are apart, 1 to 21, https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Color) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour.normalized]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
