"""What a rule sees, and what it says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.estimate import Estimate
from engine.machine import Machine
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan

Severity = Literal["note", "warning"]

SMALL_MODEL = 1_000_000_000
"""Parameters below which 4 bit weights lose too much."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice. `better` maps fields of ExportPlan to values; None where nothing is better."""

    code: str
    severity: Severity
    message: str
    better: Mapping[str, Any] | None = None

    def taken(self, plan: ExportPlan) -> ExportPlan:
        """`plan` with the better choice made."""
        return replace(plan, **(self.better or {}))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the rules about a model see; `plan` has its sizes filled in."""

    plan: ExportPlan
    facts: ModelFacts
    sizes: Estimate
    machine: Machine | None


def is_official(plan: ExportPlan) -> bool:
    """Whether the official compiler makes the library of `plan`."""
    return plan.backend == "mlc_llm"
