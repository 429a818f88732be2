"""What was decided so far, and what it will come to."""

from textwrap import wrap

from textual.content import Content
from textual.widgets import Static

from engine.advice import advise
from engine.choices import taken
from engine.estimate import estimate
from engine.plan import with_defaults
from tui import symbols
from tui.describe import decisions, estimates
from tui.draft import Draft
from tui.widgets.rows import columns


class PlanPanel(Static):
    """The plan of the draft, its estimates, and how much advice there is."""

    def __init__(self, draft: Draft) -> None:
        super().__init__(markup=False)
        self._draft = draft
        self.border_title = "Plan"

    def on_mount(self) -> None:
        """Draw."""
        self.refresh_plan()

    def on_resize(self) -> None:
        """What is long breaks elsewhere."""
        self.refresh_plan()

    def refresh_plan(self) -> None:
        """Draw the state of the draft."""
        self.update(Content("\n").join(self._lines(self.scrollable_content_region.width)))

    def _lines(self, width: int) -> list[Content]:
        draft, facts = self._draft, self._draft.facts
        plan = with_defaults(draft.plan(), facts.max_context if facts else None)
        lines = columns(decisions(plan), width)
        lines += [Content(""), Content.styled("Estimate", "bold")]
        if facts is None or facts.spec is None:
            told = "Reading the model." if draft.reading else "Known once the model has been read."
            if facts is not None and not draft.reading:
                told = "Not known for this kind of model."
            return [
                *lines,
                *(Content.styled(part, "$foreground-muted") for part in wrap(told, max(width, 8))),
            ]
        lines += columns(estimates(estimate(facts, plan)), width)
        warnings = sum(advice.severity == "warning" for advice in advise(taken(plan, facts), facts))
        if warnings:
            many = "1 warning" if warnings == 1 else f"{warnings} warnings"
            lines += [Content(""), Content.styled(f"{symbols.WARNING} {many}", "$text-warning")]
        return lines
