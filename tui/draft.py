"""The mutable state of a session: what was chosen so far, and what is known of the model.

Screens are made anew on every visit and show the draft, so that no way through them loses anything.
"""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import HubUnreachable, UsageError, WizardError
from engine.plan import BUILTIN_DEMO, ExportPlan, resolve

if TYPE_CHECKING:
    from engine.model.facts import ModelFacts

_FIELDS = frozenset(field.name for field in fields(ExportPlan))
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Draft:
    """A plan in the making.

    `chosen` are the fields that somebody decided, the others follow from the model; `done` the
    steps that were left forwards; `reading` says that the model is being read and not all is known yet,
    `asking` that a copy serves while the Hub is asked for a newer one; `notes` whatever a step wants
    back when it is visited again, such as text that is no valid value yet.
    """

    def __init__(self, plan: ExportPlan | None = None) -> None:
        self._plan = plan or ExportPlan(source="", quantization="q0f16")
        self.chosen: set[str] = set()
        self.done: set[str] = set()
        self.notes: dict[str, Any] = {}
        self.preset = ""
        self._as_preset: ExportPlan | None = None
        self.facts: ModelFacts | None = None
        self.facts_error: WizardError | None = None
        self.reading = False
        self.asking = False
        self.changed: Callable[[], None] = lambda: None

    @classmethod
    def from_plan(cls, plan: ExportPlan, preset: str = "") -> "Draft":
        """A draft that holds all choices of `plan`, every step up to the review done."""
        draft = cls(plan)
        untouched = ExportPlan(source="", quantization="")
        draft.chosen = {name for name in _FIELDS if getattr(plan, name) != getattr(untouched, name)}
        draft.chosen |= {"output", "device", "compile"}
        draft.done = {"model", "quantize", "context", "target"}
        draft.preset = preset
        draft._as_preset = plan
        return draft

    @property
    def asked(self) -> ExportPlan:
        """The plan in the words of who chose: with a branch where `plan` has the commit it stands for."""
        return self._plan

    def saved_as(self, preset: str) -> None:
        """The plan was saved as `preset` as it stands."""
        self.preset, self._as_preset = preset, self._plan

    @property
    def repeated_by(self) -> str:
        """The preset that makes the same again: empty where there is none, or something was changed."""
        return self.preset if self._plan == self._as_preset else ""

    @property
    def is_source_given(self) -> bool:
        """Whether there is a model at all."""
        return bool(self._plan.source)

    def choose(self, **changes: Any) -> None:
        """Decide fields of the plan. Another model takes its facts with it."""
        before = self._plan
        self._plan = replace(before, **changes)
        self.chosen |= changes.keys()
        if (before.source, before.model_type, before.revision) != (
            self._plan.source,
            self._plan.model_type,
            self._plan.revision,
        ):
            self.facts = self.facts_error = None
        self.changed()

    def reset(self, *names: str) -> None:
        """Leave fields open again."""
        untouched = ExportPlan(source="", quantization="q0f16")
        self._plan = replace(self._plan, **{name: getattr(untouched, name) for name in names})
        self.chosen -= set(names)
        self.changed()

    def plan(self) -> ExportPlan:
        """The plan as it stands, with what nobody chose following from the rest."""
        plan = self._plan
        if self.facts is not None and self.facts.commit:
            plan = replace(plan, revision=self.facts.commit)
        if "quantization" not in self.chosen:
            plan = replace(plan, quantization=self._quantization())
        if "output" not in self.chosen:
            plan = replace(plan, output=Path("dist") / f"{self.model_name}-{plan.quantization}-MLC")
        return plan

    @property
    def model_name(self) -> str:
        """A short name of the model, fit for a file name; "model" while there is none."""
        source = self._plan.source
        if source == BUILTIN_DEMO:
            return "demo"
        return _NOT_IN_A_NAME.sub("-", Path(source).name).strip("-.") or "model"

    def unsupported(self) -> WizardError | None:
        """Why no backend can take the model, whatever is made of it; None while that is not known."""
        if self.facts is None or self.facts.unsupported is None:
            return None
        from engine.choices import refusal

        return refusal(replace(self.plan(), compile=False), self.facts)

    def problems(self) -> list[WizardError]:
        """What stands in the way of a run, as far as it is known."""
        from engine.backends import auto  # not before the first screen is there

        if not self._plan.source:
            return [UsageError("No model is chosen yet.", remedy="Name one in the first step.")]
        if self.facts_error is not None and not isinstance(self.facts_error, HubUnreachable):
            return [self.facts_error]
        found: list[WizardError] = []
        plan = self.plan()
        for check in (
            lambda: resolve(plan, self.facts.max_context if self.facts else None),
            lambda: auto.choose(plan, self.facts, wait=False),
        ):
            try:
                check()
            except WizardError as error:
                found.append(error)
        return found

    def _quantization(self) -> str:
        from engine.advice import SMALL_MODEL

        if self._plan.source == BUILTIN_DEMO:
            return "q4f32_1"  # what the demo model was trained for
        if self.facts is not None and self.facts.quant_method == "awq":
            return "q4f16_autoawq"  # an AWQ checkpoint can become nothing else
        if self.facts is None or self.facts.parameter_count < SMALL_MODEL:
            return "q0f16"
        return "q4f16_1"
