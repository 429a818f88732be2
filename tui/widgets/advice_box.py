"""Advice: what could be chosen better and why, the better choice one key away. It never blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.message import Message
from textual.widgets import Static

from engine.advice import Advice
from tui import symbols
from tui.advice_table import title_of
from tui.describe import offer

TAKE_KEY = "u"


class AdviceItem(Static):
    """One piece of advice; where there is a better choice, enter and a click take it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "take", "Use it", show=False)]

    @dataclass
    class Taken(Message):
        """The better choice of `advice` is wanted."""

        advice: Advice

    def __init__(self, advice: Advice) -> None:
        super().__init__(advice.message, markup=False, classes=f"box {advice.severity}")
        self.advice = advice
        self.can_focus = True  # so that every piece can be scrolled to
        warns = advice.severity == "warning"
        self.border_title = f"{symbols.WARNING} {title_of(advice)}" if warns else title_of(advice)

    def show_offer(self, key: str) -> None:
        """Show the better choice, and `key` as the one that takes it."""
        if self.advice.better is not None:
            self.border_subtitle = f"{key}  {offer(self.advice.better)}".strip()

    def action_take(self) -> None:
        """Take the better choice."""
        if self.advice.better is not None:
            self.post_message(self.Taken(self.advice))

    def on_click(self) -> None:
        """A click on the box takes it, as its border says."""
        self.action_take()


class AdviceBox(VerticalGroup):
    """Pieces of advice below each other; nothing at all where there is none.

    `u` takes the first better choice, or that of the focused piece; the next `u` takes the next.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Advice, ...] = ()

    async def show(self, found: Sequence[Advice]) -> None:
        """Draw `found`."""
        if tuple(found) == self._shown:
            return
        self._shown = tuple(found)
        items = [AdviceItem(advice) for advice in found]
        offered = [item for item in items if item.advice.better is not None]
        for number, item in enumerate(offered):
            item.show_offer(TAKE_KEY if number == 0 else "")
        self.display = bool(items)
        focused = any(item.has_focus for item in self.query(AdviceItem))
        async with self.batch():
            await self.remove_children()
            await self.mount_all(items)
        if focused:  # what is left to read, or the first thing on the screen
            chain = self.screen.focus_chain
            self.screen.set_focus(items[0] if items else chain[0] if chain else None)

    @property
    def offers(self) -> bool:
        """Whether there is a better choice to take."""
        return any(advice.better is not None for advice in self._shown)

    def take(self) -> None:
        """Take the focused offer, else the first."""
        offered = [item for item in self.query(AdviceItem) if item.advice.better is not None]
        item = next((item for item in offered if item.has_focus), offered[0] if offered else None)
        if item is not None:
            item.action_take()
