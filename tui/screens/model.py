"""The step Model: which model, and what it is."""

from textual.app import ComposeResult
from textual.widgets import Input

from tui.screens.step import StepScreen


class ModelScreen(StepScreen):
    """Model."""

    STEP = "model"
    HELP = "## Model"

    def compose_body(self) -> ComposeResult:
        """Its widgets."""
        yield Input(
            value=self.draft.plan().source, placeholder="a folder, or owner/name on the Hub", id="source"
        )

    @property
    def complete(self) -> bool:
        """A model is named."""
        return self.draft.is_source_given

    def on_input_changed(self, event: Input.Changed) -> None:
        """Take the source over."""
        self.draft.choose(source=event.value)
