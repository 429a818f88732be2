"""The step Review."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.screens.step import StepScreen


class ReviewScreen(StepScreen):
    """Review."""

    STEP = "review"
    HELP = "## Review"

    def compose_body(self) -> ComposeResult:
        """Its widgets."""
        yield Static("Review")
