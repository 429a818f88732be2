"""Where a session begins."""

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, OptionList
from textual.widgets.option_list import Option

from tui.draft import Draft

if TYPE_CHECKING:
    from tui.app import WizardApp


class StartScreen(Screen[None]):
    """New export, or a preset."""

    HELP = "## Start"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("n", "new", "New export")]

    def compose(self) -> ComposeResult:
        """A list."""
        yield OptionList(Option("New export", id="new"))
        yield Footer(compact=True, show_command_palette=False)

    def on_option_list_option_selected(self) -> None:
        """Open what was chosen."""
        self.action_new()

    def action_new(self) -> None:
        """An empty draft."""
        cast("WizardApp", self.app).begin(Draft())
