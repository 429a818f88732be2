"""The step Model: which model, and what it is."""

import os
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, VerticalGroup
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import HubUnreachable, NotAuthorizedError, WizardError
from engine.model import nearby
from engine.model import source as model_source
from engine.model.nearby import Nearby
from engine.plan import BUILTIN_DEMO, ExportPlan
from tui import describe, facts_table, symbols
from tui.messages import NearbyFound
from tui.pasted import model_of, path_of
from tui.screens.step import StepScreen
from tui.widgets.rows import Rows
from tui.widgets.source_input import SourceInput, SourceSuggester

_PAUSE = 0.3
"""Seconds without a key before what was typed is looked at."""
_TYPED = "model.typed"
_KEY = "model.source = "
"""What presets call the field; on the screen it is before everybody's eyes."""
_OPTIONS = (
    ("revision", "revision", "newest", "commit, branch or tag"),
    ("lora_adapter", "adapter", "none", "a LoRA to merge"),
    ("conv_template", "template", "auto", "chat format, or none"),
    ("model_type", "model type", "auto", "overrides config.json"),
)

_UNTOUCHED = ExportPlan(source="", quantization="")


class NearbyList(OptionList):
    """Models that are here already."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Take it", key_display="enter", tooltip="Take the highlighted model"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]


class ModelScreen(StepScreen):
    """A folder, a Hub id or the demo; its facts as they are read."""

    STEP = "model"
    HELP = """
## Model

The model to export, as Hugging Face publishes it: **config.json**, weights in **safetensors**, a tokenizer.

- a **folder** on this machine. It starts with `/`, `~` or `.`, or lies in the current folder;
  **tab** completes its name.
- the **id** of a model on the Hugging Face Hub, `owner/name`. What it is, is asked at once; its weights are
  fetched when the export runs, of the commit shown. Gated models need a token: `hf auth login`, or HF_TOKEN.
- **builtin:demo**, a tiny model inside the program, to see an export from start to finish.

*revision* pins a commit, branch or tag of the Hub. An *adapter* (LoRA, as PEFT saves it) is merged into the
weights: a folder, or `owner/name` on the Hub, with `@revision` where one is wanted. *template* is the
conversation format; `auto` derives it from the model's own chat template. *model type* overrides what
config.json says.
"""

    def __init__(self) -> None:
        super().__init__()
        self._timer: Timer | None = None
        self._suggester = SourceSuggester()
        self._typing_error: WizardError | None = None
        self._going_on = False

    def compose_body(self) -> ComposeResult:
        """The field, then what is known about what it names."""
        typed = self.draft.notes.get(_TYPED)
        with VerticalGroup(classes="box", id="source-box") as box:
            box.border_title = "Model"
            box.border_subtitle = "a folder, owner/name on the Hub, or builtin:demo"
            yield SourceInput(
                value=self.draft.plan().source if typed is None else typed,
                placeholder="./my-model   or   google/gemma-3-270m-it",
                suggester=self._suggester,
                id="source",
                compact=True,
            )
            yield Static("", id="state", markup=False)
        yield Rows("What it is", id="facts")
        here = NearbyList(id="nearby", classes="box", compact=True, markup=False)
        here.border_title = "On this machine"
        here.border_subtitle = "down, enter  take one"
        yield here
        with VerticalGroup(classes="box", id="options-box") as box:
            box.border_title = "Rarely needed"
            plan = self.draft.asked
            for field, label, placeholder, told in _OPTIONS:
                value = getattr(plan, field)
                with HorizontalGroup(classes="field"):
                    yield Label(label, classes="name")
                    yield Input(
                        value="" if value == "auto" else value,
                        placeholder=placeholder,
                        id=field,
                        compact=True,
                    )
                    yield Label(told, classes="told")

    def on_enter(self) -> None:
        """Look around, and show what is known."""
        self.query_one(SourceInput).focus()
        self._look_around()
        self._show()
        if self.draft.is_source_given and self.draft.facts is None and not self.draft.reading:
            self.wizard.read_facts()

    @work(thread=True, exit_on_error=False, group="nearby")
    def _look_around(self) -> None:
        self.post_message(NearbyFound(list(nearby.models(Path.cwd()))))

    def on_nearby_found(self, message: NearbyFound) -> None:
        """Offer them."""
        self._suggester.names = tuple(model.source for model in message.models)
        self.query_one(NearbyList).set_options([_option(model) for model in message.models])

    @on(OptionList.OptionSelected, "#nearby")
    def take(self, event: OptionList.OptionSelected) -> None:
        """Take a model that is here."""
        field = self.query_one(SourceInput)
        field.value = event.option.id or ""
        field.cursor_position = len(field.value)
        field.focus()

    @on(Input.Changed, "#source")
    def typed(self, event: Input.Changed) -> None:
        """Wait until the hand rests, then look at it."""
        if event.value == self.draft.notes.get(_TYPED, self.draft.plan().source):
            return
        self.draft.notes[_TYPED] = event.value
        self._typing_error = None
        self._going_on = False
        self.wizard.stop_reading()
        self.draft.choose(source="")
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(_PAUSE, self._look)

    @on(Input.Submitted, "#source")
    def submitted(self) -> None:
        """Look at it now, and go on once it was read."""
        self._look()
        self._going_on = True
        self._go_on()

    def _look(self) -> None:
        """Take what was typed as the source, and read it."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        typed = str(self.draft.notes.get(_TYPED, self.draft.plan().source))
        named, revision = model_of(typed)
        if named != path_of(typed):
            self._take_address(named, revision)
        try:
            source = model_source.from_preset(named, Path.cwd()) if named else ""
        except WizardError as error:
            source, self._typing_error = "", error
        if source != self.draft.plan().source:
            self.draft.choose(source=source)
        if source and self.draft.facts is None:
            self.wizard.read_facts()
        self._show()

    def _take_address(self, named: str, revision: str) -> None:
        """The address of a Hub page was pasted: show what it stands for."""
        self.draft.notes[_TYPED] = named
        for field, value in (("source", named), ("revision", revision)):
            box = self.query_one(f"#{field}", Input)
            with box.prevent(Input.Changed):
                box.value = value
        if revision != self.draft.asked.revision:
            self.draft.choose(revision=revision)

    @on(Input.Changed)
    def option_changed(self, event: Input.Changed) -> None:
        """Take over what is rarely needed."""
        field = event.input.id or ""
        if field not in {name for name, *_ in _OPTIONS}:
            return
        value = event.value.strip() or getattr(_UNTOUCHED, field)
        if field == "lora_adapter":
            value = _adapter(value)
        if value == getattr(self.draft.asked, field):
            return
        self.draft.choose(**{field: value})
        if field not in ("conv_template", "lora_adapter") and self.draft.is_source_given:
            if self._timer is not None:
                self._timer.stop()
            self._timer = self.set_timer(_PAUSE, self._look)

    def draft_changed(self) -> None:
        """Facts arrived, or a reason why there are none."""
        super().draft_changed()
        if self.has_widgets:
            self._show()
            self._go_on()

    def _go_on(self) -> None:
        if not self._going_on or self.draft.reading:
            return
        self._going_on = False
        if self.complete:
            self.action_next()

    def _show(self) -> None:
        """Show state and facts."""
        draft, state = self.draft, self.query_one("#state", Static)
        error = self._typing_error or draft.facts_error
        if error is None and draft.facts is not None:
            error = draft.unsupported()
        text, kind = self._state(error)
        state.update(text)
        state.set_class(kind == "error", "broken")
        state.set_class(kind == "muted", "muted")
        state.display = bool(text)
        facts = self.query_one("#facts", Rows)
        if draft.facts is not None:
            facts.show(facts_table.rows(draft.facts))
        facts.display = draft.facts is not None
        self.query_one("#nearby").display = not draft.is_source_given

    def _state(self, error: WizardError | None) -> tuple[str | Content, str]:
        draft = self.draft
        if isinstance(error, HubUnreachable):
            return _offline(error), "warning"
        if error is not None:
            again = "Enter asks the Hub again." if isinstance(error, NotAuthorizedError) else ""
            told = "".join(f"\n{part}" for part in (error.why, error.remedy, again) if part)
            what = error.what.removeprefix(_KEY)
            return Content.assemble((f"{symbols.FAILED} {what}", "$text-error"), told), "error"
        if not draft.is_source_given:
            return "", "muted"
        facts = draft.facts
        if draft.reading or facts is None:
            what = "reading" if facts is None else "reading the headers of the weights"
            return f"{symbols.RUNNING} {what}{symbols.ELLIPSIS}", "muted"
        if draft.asked.source == BUILTIN_DEMO:
            return f"{symbols.DONE} the demo model", "muted"
        if not facts.commit:
            return f"{symbols.DONE} {_shown(facts.folder)}", "muted"
        place = "on the Hub" if facts.remote else "fetched from the Hub before"
        newer = f"; asking for a newer one{symbols.ELLIPSIS}" if draft.asking else ""
        return f"{symbols.DONE} {place}, commit {describe.short_commit(facts.commit)}{newer}", "muted"

    @property
    def complete(self) -> bool:
        """A model is named, and nothing is known to be wrong with it."""
        self._flush()
        draft = self.draft
        unsupported = draft.unsupported() is not None
        refused = draft.facts_error is not None and not isinstance(draft.facts_error, HubUnreachable)
        return draft.is_source_given and not refused and not unsupported and not draft.reading

    def _flush(self) -> None:
        """What was typed last counts, even where the hand did not rest."""
        if self._timer is not None:
            self._look()

    def why_incomplete(self) -> str:
        """What is missing."""
        if self.draft.reading:
            return "The model is still being read."
        error = self._typing_error or self.draft.facts_error
        if error is None and self.draft.facts is not None:
            error = self.draft.unsupported()
        if error:
            return error.what.removeprefix(_KEY)
        return "Name a model first: a folder, a Hub id, or builtin:demo."

    def action_next(self) -> None:
        """Go on; where the model is still being read, as soon as it was."""
        if not self.complete and self.draft.reading:
            self._going_on = True
            return
        super().action_next()


def _offline(error: HubUnreachable) -> Content:
    """Why the Hub tells nothing, which need not stop anybody."""
    going_on = "You can go on: what the model is, and so every size, is known once it was fetched."
    lines = [error.why, error.remedy.partition(" Run the same command again")[0], going_on]
    return Content("\n").join(
        [
            Content.styled(f"{symbols.WARNING} {error.what}", "$text-warning"),
            *(line for line in lines if line),
        ]
    )


def _adapter(text: str) -> str:
    """What was typed as a plan's `lora_adapter`; what it cannot be stays as it is, for Review to tell."""
    try:
        return model_source.adapter_from_preset(path_of(text), Path.cwd()) if text else ""
    except WizardError:
        return text


def _shown(folder: Path) -> str:
    """A folder, short where it lies in the current one."""
    here = Path.cwd()
    return f".{os.sep}{folder.relative_to(here)}" if here in folder.parents else str(folder)


def _option(model: Nearby) -> Option:
    return Option(
        Content.assemble((f"{model.source:<34} ", "$foreground"), (model.place, "$foreground-muted")),
        id=model.source,
    )
