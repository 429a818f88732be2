"""The step Quantize."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.screens.step import StepScreen


class QuantizeScreen(StepScreen):
    """Quantize."""

    STEP = "quantize"
    HELP = "## Quantize"

    def compose_body(self) -> ComposeResult:
        """Its widgets."""
        yield Static("Quantize")
