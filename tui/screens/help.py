"""Help: what the screen below is about, and which keys work there."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Markdown, Static

from tui.widgets.key_line import KeyLine

_EVERYWHERE = """
### Everywhere

**ctrl+p** finds every command by name, **ctrl+q** leaves. **tab** goes to the next field or list. The digits
**1** to **7** go to a step that was done. In a field, letters are text: **F1** is the help then. The mouse
works wherever keys do. What is copied reaches the clipboard through the terminal (OSC 52); a few cannot.
"""


class HelpScreen(ModalScreen[None]):
    """The help of `about`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss", "Close", key_display="esc")
    ]
    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        background: $background 60%;
        & > Vertical {
            width: 76;
            max-width: 100%;
            height: auto;
            max-height: 100%;
            border: round $border;
            border-title-color: $primary;
            background: $surface;
        }
        & VerticalScroll { height: auto; max-height: 100vh; padding: 0 1; scrollbar-size-vertical: 1; }
        & Markdown { padding: 0 1; background: transparent; }
        & MarkdownH2 { margin: 0 0 1 0; text-style: bold; }
        & #keys { padding: 0 1; margin: 0 0 1 0; }
    }
    """

    def __init__(self, about: Screen[object]) -> None:
        super().__init__()
        self._text = str(about.HELP or "") + _EVERYWHERE
        self._keys = _keys_of(about)

    def compose(self) -> ComposeResult:
        """Text, then keys."""
        with Vertical() as frame:
            frame.border_title = "Help"
            with VerticalScroll():
                yield Markdown(self._text.strip())
                yield Static(self._keys, id="keys")
        yield KeyLine()

    def on_click(self, event: events.Click) -> None:
        """A click beside it closes it."""
        if event.widget is self:
            self.dismiss()


def _keys_of(screen: Screen[object]) -> Content:
    """The keys that work on `screen` now and have something to say, each action once."""
    seen: dict[str, tuple[list[str], str]] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if not (binding.show or binding.tooltip) or binding.action.startswith("jump"):
            continue
        keys, _ = seen.setdefault(binding.action, ([], binding.tooltip or binding.description))
        keys.append(screen.app.get_key_display(binding))
    lines = []
    for keys, told in seen.values():
        shown = ", ".join(dict.fromkeys(keys))
        lines.append(Content.assemble((f"{shown:<14} ", "bold $primary"), (told, "$foreground")))
    return Content("\n").join(lines)
