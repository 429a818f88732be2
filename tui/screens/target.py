"""The step Target."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.screens.step import StepScreen


class TargetScreen(StepScreen):
    """Target."""

    STEP = "target"
    HELP = "## Target"

    def compose_body(self) -> ComposeResult:
        """Its widgets."""
        yield Static("Target")
