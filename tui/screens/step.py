"""What all steps have in common: the rail on top, the body, the plan beside it, and the keys."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widget import Widget

from tui import steps
from tui.draft import Draft
from tui.widgets.key_line import KeyLine
from tui.widgets.plan_panel import PlanPanel
from tui.widgets.step_rail import StepRail

if TYPE_CHECKING:
    from tui.app import WizardApp


class StepScreen(Screen[None]):
    """A step. Subclasses give STEP, HELP, `compose_body`, and what of the rest they need.

    A screen is made anew on every visit; its state is the draft's.
    """

    STEP: ClassVar[str]
    FIRST_KEYS: ClassVar[tuple[str, ...]] = ("next",)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "next", "Next", id="next", tooltip="Go on to the next step"),
        Binding("escape", "back", "Back", id="back", tooltip="The step before; nothing is lost"),
        Binding("p", "plan", "Plan", id="plan", tooltip="The plan so far, or back from it"),
        *(
            Binding(str(number), f"jump('{step.name}')", step.title, show=False)
            for number, step in enumerate(steps.STEPS, 1)
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._left: Widget | None = None

    @property
    def wizard(self) -> "WizardApp":
        """The application, as what it is."""
        return cast("WizardApp", self.app)

    @property
    def draft(self) -> Draft:
        """The draft of this session."""
        return self.wizard.draft

    def compose(self) -> ComposeResult:
        """Rail, body, plan, footer."""
        yield StepRail(self.STEP, self.draft)
        with Horizontal(id="frame"):
            with VerticalScroll(id="body", can_focus=False):
                yield from self.compose_body()
            yield PlanPanel(self.draft)
        yield KeyLine()

    def compose_body(self) -> ComposeResult:
        """The widgets of this step."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Begin the visit."""
        self.on_enter()

    def on_enter(self) -> None:
        """Called once the widgets are there."""

    @property
    def complete(self) -> bool:
        """Whether the next step may be entered."""
        return True

    def why_incomplete(self) -> str:
        """One sentence for the person who wants to go on and cannot."""
        return "This step is not finished."

    @property
    def has_widgets(self) -> bool:
        """Whether there is something to draw on: not while the screen is being put up or taken away."""
        return self.is_mounted and bool(self.query(StepRail))

    def draft_changed(self) -> None:
        """The draft changed, here or by a worker: show it. Subclasses extend this."""
        if self.has_widgets:
            self.query_one(StepRail).refresh_steps()
            self.query_one(PlanPanel).refresh_plan()

    def leaving(self, go: Callable[[], Any]) -> None:
        """Somebody wants to leave this screen: `go` does. The run asks first."""
        go()

    def action_next(self) -> None:
        """The next step, where this one is complete."""
        following = steps.after(self.STEP)
        if not self.complete:
            self.notify(self.why_incomplete(), severity="warning", markup=False)
        elif following is not None:
            self.draft.done.add(self.STEP)
            self.leaving(lambda: self.wizard.go(following))

    def action_back(self) -> None:
        """The step before, or the start; from the plan in front of the body, the body."""
        if self.has_class("-plan") and not self.has_class("-wide"):
            self.action_plan()
            return
        previous = steps.before(self.STEP)
        self.leaving(lambda: self.wizard.go(previous or "start"))

    def action_jump(self, name: str) -> None:
        """Another step, where it was done or is the next to do."""
        if name != self.STEP and self.can_jump(name):
            self.leaving(lambda: self.wizard.go(name))

    def can_jump(self, name: str) -> bool:
        """Whether `name` was done, or all steps before it were. Run and Result have ways of their own."""
        if name in ("run", "result"):
            return name in self.draft.done
        earlier = steps.NAMES[: steps.NAMES.index(name)]
        return name in self.draft.done or all(step in self.draft.done for step in earlier)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """The plan is asked for where it is not beside the body anyway."""
        return action != "plan" or not self.has_class("-wide") or self.has_class("-plan")

    def action_plan(self) -> None:
        """Show the plan in front of the body, or the body as it was left."""
        if not self.has_class("-plan"):
            self._left = self.focused  # what is hidden loses it
        self.toggle_class("-plan")
        if not self.has_class("-plan") and self._left is not None and self._left.is_attached:
            self._left.focus()
