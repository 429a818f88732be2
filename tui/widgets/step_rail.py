"""The steps in one line: which are done, which is open, which wait."""

from textual import events
from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from tui import steps, symbols
from tui.draft import Draft


class StepRail(Static):
    """A line of steps; a click on a done one goes there."""

    def __init__(self, current: str, draft: Draft) -> None:
        super().__init__()
        self._current = current
        self._draft = draft

    def on_mount(self) -> None:
        """Draw."""
        self.refresh_steps()

    def on_resize(self) -> None:
        """A narrow line holds fewer words."""
        self.refresh_steps()

    async def on_click(self, event: events.Click) -> None:
        """Go to the step that was clicked, where it may be gone to."""
        if name := event.style.meta.get("step"):
            await self.run_action(f"screen.jump({str(name)!r})")

    def refresh_steps(self) -> None:
        """Draw the state of the draft."""
        number = steps.NAMES.index(self._current) + 1
        title = steps.STEPS[number - 1].title
        if (self.size.width or self.app.size.width - 4) < 76:  # it has no width before the first frame
            marks = "".join(self._mark(step.name) for step in steps.STEPS)
            self.update(Content.assemble(f"{marks}  ", (f"{number} {title}", "bold $primary")))
            return
        parts: list[Content] = []
        for step in steps.STEPS:
            style = "bold $primary" if step.name == self._current else self._style(step.name)
            text = Content.styled(f"{self._mark(step.name)} {step.title}", style)
            parts.append(text.stylize(Style.from_meta({"step": step.name})))
        self.update(Content("   ").join(parts))

    def _mark(self, name: str) -> str:
        if name == self._current:
            return symbols.RUNNING
        return symbols.DONE if name in self._draft.done else symbols.WAITING

    def _style(self, name: str) -> str:
        return "$foreground" if name in self._draft.done else "$foreground-muted"
