"""The step Context."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.screens.step import StepScreen


class ContextScreen(StepScreen):
    """Context."""

    STEP = "context"
    HELP = "## Context"

    def compose_body(self) -> ComposeResult:
        """Its widgets."""
        yield Static("Context")
