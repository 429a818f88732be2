"""The step Context: how much text the model works with, and what that costs."""

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, Static

from engine.advice import Advice
from tui import sizes
from tui.screens.advised import AdvisedStep
from tui.widgets.advice_box import AdviceBox
from tui.widgets.size_field import SizeField

TITLES = {sizes.CONTEXT: "Context window", sizes.PREFILL: "Prefill chunk", sizes.WINDOW: "Rolling cache"}


def table(rows: list[tuple[str, str, str]], width: int) -> Content:
    """Name, size and explanation; the explanation goes where there is no room for it."""
    if not rows:
        return Content.styled("Known once the model has been read.", "$foreground-muted")
    name, size = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = []
    for row in rows:
        head = Content.assemble((f"{row[0]:{name}}  ", "$foreground-muted"), f"{row[1]:>{size}}")
        fits = name + size + 4 + len(row[2]) <= width
        lines.append(head.append(Content.styled(f"  {row[2]}", "$foreground-muted")) if fits else head)
    return Content("\n").join(lines)


class ContextScreen(AdvisedStep):
    """Context."""

    STEP = "context"
    HELP = """## Context

**Context window**: tokens of prompt and answer together, the most that the model remembers. The KV cache,
which holds what was read, is allocated for all of it when the model is loaded: 2 x layers x key/value heads x
head size x bytes of a number x tokens.

**Prefill chunk**: a prompt is read in pieces of this many tokens. Larger pieces read long prompts faster
and need more memory for activations; the answer is the same.

**Sliding window**: some models let most of their layers see only the last so many tokens. The export
keeps each layer's own window, so there is nothing to set.

**Rolling cache**: a Mistral can also be exported without an end to its conversations. The KV cache has a
fixed size; when it is full, the first tokens stay and the oldest of the others go. Answers differ from the
model's own as soon as anything was dropped.

An empty field takes the default, shown in grey. Up and down step through common sizes, enter goes on.
"""

    def compose_body(self) -> ComposeResult:
        """The fields, the costs, and advice."""
        yield SizeField(sizes.CONTEXT, TITLES[sizes.CONTEXT])
        yield SizeField(sizes.PREFILL, TITLES[sizes.PREFILL])
        yield SizeField(sizes.WINDOW, TITLES[sizes.WINDOW])
        yield Static(id="window", classes="box", markup=False)
        yield Static(id="costs", classes="box", markup=False)
        yield AdviceBox()

    def on_enter(self) -> None:
        """Show the draft, and what was typed and is no size yet."""
        self.query_one("#costs").border_title = "On the device"
        self.query_one("#window").border_title = "Sliding window"
        # A preset may ask for a rolling cache that the model cannot have; then it is for taking out.
        asked = self.draft.plan().sliding_window_size not in (None, -1)
        self._field(sizes.WINDOW).display = asked or sizes.WINDOW in self._typed
        self._field(sizes.CONTEXT).query_one(Input).focus()
        super().on_enter()

    @property
    def _typed(self) -> dict[str, str]:
        """Texts that are no sizes yet, by field; kept in the draft, as screens are made anew."""
        texts: dict[str, str] = self.draft.notes.setdefault("sizes", {})
        return texts

    def _field(self, field: str) -> SizeField:
        return self.query_one(f"#field-{field}", SizeField)

    def _read(self) -> sizes.Typed:
        plan = self.draft.plan()
        texts = {field: sizes.shown(getattr(plan, field)) for field in sizes.FIELDS} | self._typed
        return sizes.read(texts, plan, self.draft.facts)

    @property
    def complete(self) -> bool:
        """All sizes can be had, together."""
        return not self._read().problems

    def why_incomplete(self) -> str:
        """The first problem."""
        return next((f"{TITLES[field]}: {text}" for field, text in self._read().problems.items()), "")

    def advice(self) -> list[Advice]:
        """None about sizes that are not those on the screen."""
        return [] if self._read().problems else super().advice()

    def draw(self) -> None:
        """Show sizes, limits, problems and costs."""
        read, facts = self._read(), self.draft.facts
        if facts is not None and facts.can_roll:
            self._field(sizes.WINDOW).display = True
        for field, limits in (
            (sizes.CONTEXT, sizes.context_limits(read.plan, facts)),
            (sizes.PREFILL, sizes.prefill_limits(read.plan, facts)),
            (sizes.WINDOW, sizes.rolling_limits(read.plan)),
        ):
            widget = self._field(field)
            widget.set_text(self._typed.get(field, sizes.shown(getattr(read.plan, field))))
            widget.show(
                default=sizes.default_of(field, read.plan, facts),
                steps=sizes.steps(field, read.plan, facts),
                limits=limits,
                problem=read.problems.get(field, ""),
            )
        window = self.query_one("#window", Static)
        told = sizes.window_told(read.plan, facts)
        window.update(told)
        window.display = bool(told)
        self._draw_costs()

    def _draw_costs(self) -> None:
        panel = self.query_one("#costs", Static)
        read = self._read()
        width = panel.scrollable_content_region.width
        if read.problems:
            panel.update(Content.styled("Known once the sizes fit together.", "$foreground-muted"))
        else:
            panel.update(table(sizes.costs(read.plan, self.draft.facts), width))

    def on_resize(self) -> None:
        """There may be room for more, or less."""
        if self.is_mounted:
            self._draw_costs()

    @on(SizeField.Changed)
    def _changed(self, message: SizeField.Changed) -> None:
        """Into the draft with what fits together; the rest waits as text."""
        self._typed[message.field] = message.text
        read = self._read()
        if read.problems:
            self.draft_changed()
            return
        changed = {f: getattr(read.plan, f) for f in sizes.FIELDS}
        plan = self.draft.plan()
        self._typed.clear()
        self.draft.choose(**{f: v for f, v in changed.items() if v != getattr(plan, f)})

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_next()
