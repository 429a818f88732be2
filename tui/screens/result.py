"""The step Result."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.screens.step import StepScreen


class ResultScreen(StepScreen):
    """Result."""

    STEP = "result"
    HELP = "## Result"

    def compose_body(self) -> ComposeResult:
        """Its widgets."""
        yield Static("Result")
