"""The step Run."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.screens.step import StepScreen


class RunScreen(StepScreen):
    """Run."""

    STEP = "run"
    HELP = "## Run"

    def compose_body(self) -> ComposeResult:
        """Its widgets."""
        yield Static("Run")
