"""The program's own theme; Textual's can be chosen in the command palette."""

from textual.theme import Theme

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
        "footer-background": "transparent",
        "footer-key-foreground": "#6cb6c4",
        "footer-description-foreground": "#98a2b0",
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
