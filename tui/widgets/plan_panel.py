"""What was decided so far."""

from textual.widgets import Static

from tui.draft import Draft


class PlanPanel(Static):
    """The plan of the draft."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(markup=False)
        self._draft = draft
        self.border_title = "Plan"

    def on_mount(self) -> None:
        """Draw."""
        self.refresh_plan()

    def refresh_plan(self) -> None:
        """Draw the state of the draft."""
        plan = self._draft.plan()
        self.update(f"model     {plan.source or '-'}\nquantize  {plan.quantization}\ntarget    {plan.device}")
