"""The step Target: which device, and whether a model library is compiled for it."""

from textual import on
from textual.app import ComposeResult

from engine.choices import TargetChoice, target_choices, with_device
from tui import describe, symbols
from tui.screens.advised import AdvisedStep
from tui.widgets.advice_box import AdviceBox
from tui.widgets.choice_list import Choice, ChoiceList

LIBRARY, WEIGHTS = "with library", "weights only"


def device_rows(choices: tuple[TargetChoice, ...]) -> list[Choice]:
    """Devices as rows; all can be chosen, as weights and configuration serve each of them."""
    return [
        Choice(
            name=choice.target.name,
            sentence=choice.target.sentence,
            figures=(_compiles(choice),),
        )
        for choice in choices
    ]


def _compiles(choice: TargetChoice) -> str:
    """Whether there is a library to be had, and from which compiler where it is not ours."""
    if not choice.compiles:
        return WEIGHTS
    return (
        f"{symbols.DONE} compiles"
        if choice.backend in ("", "embedded")
        else f"{symbols.DONE} {choice.backend}"
    )


def part_rows(choice: TargetChoice) -> list[Choice]:
    """What can be made for a device."""
    return [
        Choice(
            name=LIBRARY,
            sentence=f"Weights, configuration and {choice.library}, ready to be loaded.",
            refused=describe.told(choice.lacks) if choice.lacks else "",
        ),
        Choice(
            name=WEIGHTS,
            sentence="Weights and configuration; a library from elsewhere completes them.",
        ),
    ]


class TargetScreen(AdvisedStep):
    """Target."""

    STEP = "target"
    HELP = """## Target

Where the model will run. Weights and configuration are the same for every device; the **model library**
is the compiled code for one of them.

**with library** compiles it here. **weights only** makes everything else: any machine can do that, and a
library compiled elsewhere, or one that exists for the same model and sizes, completes it.

Of three backends, **embedded** is the compiler inside mlc-wizard, **mlc_llm** MLC's own, and **docker**
either of them in a container; the first that can make all of it does.

Arrows move and choose, tab goes from the device to what is made for it, enter goes on.
"""

    def compose_body(self) -> ComposeResult:
        """Devices, what is made, what is missing, and advice."""
        yield ChoiceList(beside=True, id="devices")
        yield ChoiceList(id="parts")
        yield AdviceBox()

    def on_enter(self) -> None:
        """Begin in the list of devices."""
        self.query_one("#devices").border_title = "Target"
        self.query_one("#parts").border_title = "What is made"
        self.query_one("#devices").focus()
        super().on_enter()

    @property
    def _wants_library(self) -> bool:
        """What was chosen last; a device without a compiler does not change the wish."""
        wish: bool = self.draft.notes.get("library", self.draft.plan().compile)
        return wish

    def draw(self) -> None:
        """Show devices and parts."""
        plan = self.draft.plan()
        choices = target_choices(plan, self.draft.facts)
        self.query_one("#devices", ChoiceList).show(device_rows(choices), plan.device)
        choice = next((c for c in choices if c.target.name == plan.device), choices[0])
        parts = self.query_one("#parts", ChoiceList)
        parts.show(part_rows(choice), LIBRARY if plan.compile else WEIGHTS)
        parts.border_subtitle = choice.target.name

    @property
    def complete(self) -> bool:
        """What is to be made can be made here."""
        return not self.why_incomplete()

    def why_incomplete(self) -> str:
        """What this version or this machine lacks."""
        plan = self.draft.plan()
        choices = target_choices(plan, self.draft.facts) if plan.compile else ()
        choice = next((c for c in choices if c.target.name == plan.device), None)
        return describe.told(choice.lacks) if choice and choice.lacks else ""

    def _take_over(self, device: str, *, library: bool) -> None:
        plan = with_device(self.draft.plan(), device, library=library, facts=self.draft.facts)
        self.draft.choose(device=plan.device, compile=plan.compile)

    @on(ChoiceList.Chosen, "#devices")
    def _choose_device(self, message: ChoiceList.Chosen) -> None:
        wish = self._wants_library
        self.draft.notes["library"] = wish
        self._take_over(message.name, library=wish)

    @on(ChoiceList.Chosen, "#parts")
    def _choose_part(self, message: ChoiceList.Chosen) -> None:
        self.draft.notes["library"] = message.name == LIBRARY
        self._take_over(self.draft.plan().device, library=message.name == LIBRARY)

    @on(ChoiceList.Accepted)
    def _accept(self) -> None:
        self.action_next()
