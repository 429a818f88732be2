"""The step Quantize: how the weights are stored."""

from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from engine.choices import QuantizationChoice, quantization_choices
from tui import describe
from tui.screens.advised import AdvisedStep
from tui.widgets.advice_box import AdviceBox
from tui.widgets.choice_list import Choice, ChoiceList

HEADING = ("bits/weight", "download bytes", "memory bytes")


def rows(choices: tuple[QuantizationChoice, ...]) -> list[Choice]:
    """Quantizations as rows of a list, a line each: what one is for is told of the row under the cursor."""
    return [
        Choice(
            name=choice.quantization.name,
            sentence="",
            figures=(
                describe.bits(choice.bits_per_weight),
                f"{choice.sizes.disk_bytes:,}" if choice.sizes else "",
                f"{choice.sizes.weight_bytes:,}" if choice.sizes else "",
            ),
            refused=describe.told(choice.refused) if choice.refused else "",
            mark="warning" if choice.warnings and not choice.refused else "",
        )
        for choice in choices
    ]


class QuantizeScreen(AdvisedStep):
    """Quantize."""

    STEP = "quantize"
    HELP = """## Quantize

How the weights are stored. The first number of a name is the bits of a weight, 0 for not quantized;
f16, bf16 or f32 is what the model computes in. At the end, **_1** is the usual layout and **_0** the
same numbers transposed; **_2** leaves the embedding and the head as they are.

**Fewer bits** make a smaller download and less memory on the device, and answers that are worse: a
little for large models, a lot for models below a billion parameters.

**f16** needs WebGPU's shader-f16 in a browser, which older graphics cards lack; **f32** runs everywhere;
**bf16** runs in no browser.

**q4f16_autoawq** takes over the weights of an AWQ checkpoint, which can become nothing else.

Sizes are computed from the shapes of the model's tensors, to the byte.

Arrows move and choose, enter goes on, `u` takes the better choice where one is advised.
"""

    def __init__(self) -> None:
        super().__init__()
        self._offered: tuple[QuantizationChoice, ...] = ()

    def compose_body(self) -> ComposeResult:
        """The list, what there is to say about the row under the cursor, and advice."""
        yield ChoiceList(heading=HEADING, beside=True, id="quantizations")
        yield Static(id="sizes", classes="detail", markup=False)
        yield AdviceBox()

    def on_enter(self) -> None:
        """Begin in the list."""
        self.query_one(ChoiceList).border_title = "Quantization"
        self.query_one(ChoiceList).focus()
        super().on_enter()

    @property
    def complete(self) -> bool:
        """The chosen quantization can be had."""
        chosen = next(
            (c for c in self._choices() if c.quantization.name == self.draft.plan().quantization), None
        )
        return chosen is not None and chosen.refused is None

    def why_incomplete(self) -> str:
        """Why it cannot be had."""
        return next((str(c.refused) for c in self._choices() if c.refused), "Choose a quantization.")

    def draw(self) -> None:
        """Show what can be chosen, and its sizes."""
        plan, facts = self.draft.plan(), self.draft.facts
        self._offered = self._choices()
        table = self.query_one(ChoiceList)
        table.show(rows(self._offered), plan.quantization)
        if facts is not None:
            table.border_subtitle = f"{facts.parameter_count / 1e6:,.1f} M parameters, {facts.dtype.lower()}"
        else:
            table.border_subtitle = "the model is not read yet"
        self._tell(table.looked_at or plan.quantization)

    def _choices(self) -> tuple[QuantizationChoice, ...]:
        return quantization_choices(self.draft.plan(), self.draft.facts)

    def _tell(self, name: str) -> None:
        choice = next((c for c in self._offered if c.quantization.name == name), None)
        lines = []
        if choice is not None:
            refused = describe.told(choice.refused) if choice.refused else ""
            lines = [choice.quantization.sentence, refused or describe.quantization_detail(choice)]
        self.query_one("#sizes", Static).update("\n".join(lines))

    @on(ChoiceList.Looked)
    def _look(self, message: ChoiceList.Looked) -> None:
        self._tell(message.name)

    @on(ChoiceList.Chosen)
    def _choose(self, message: ChoiceList.Chosen) -> None:
        self.draft.choose(quantization=message.name)

    @on(ChoiceList.Accepted)
    def _accept(self) -> None:
        self.action_next()
