"""A step that has advice: drawn again whenever the draft changes, the better choice one key away."""

from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType

from engine.advice import Advice, advise
from engine.choices import taken
from tui.advice_table import for_step
from tui.screens.step import StepScreen
from tui.widgets.advice_box import AdviceBox, AdviceItem


class AdvisedStep(StepScreen):
    """A step with an AdviceBox in its body. Subclasses extend `draw`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "take_advice", "Use better", id="take", tooltip="Take the better choice"),
        Binding("pagedown", "page_body(1)", "Page down", show=False, tooltip="What is below the edge"),
        Binding("pageup", "page_body(-1)", "Page up", show=False),
    ]

    def on_enter(self) -> None:
        """Show the draft."""
        self.call_next(self._draw)

    def draft_changed(self) -> None:
        """Draw again, once all that is going on now is done."""
        super().draft_changed()
        if self.has_widgets:
            self.call_next(self._draw)

    def draw(self) -> None:
        """Show the draft in the widgets of this step."""

    def advice(self) -> list[Advice]:
        """The advice of this step."""
        return for_step(self.STEP, advise(taken(self.draft.plan(), self.draft.facts), self.draft.facts))

    async def _draw(self) -> None:
        self.draw()
        await self.query_one(AdviceBox).show(self.advice())
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """`u` is offered where there is something to take."""
        if action == "take_advice" and self.is_mounted:
            return self.query_one(AdviceBox).offers
        return super().check_action(action, parameters)

    @on(AdviceItem.Taken)
    def take(self, message: AdviceItem.Taken) -> None:
        """Take the better choice into the draft; it wins over text that is no size yet."""
        better = message.advice.better or {}
        for field in better:
            self.draft.notes.get("sizes", {}).pop(field, None)
        self.draft.choose(**better)

    def action_page_body(self, pages: int) -> None:
        """Scroll what does not fit."""
        body = self.query_one("#body")
        body.scroll_relative(y=pages * max(body.size.height - 2, 1), animate=False)

    def action_take_advice(self) -> None:
        """Take the better choice."""
        self.query_one(AdviceBox).take()
