"""What could be chosen better: rules over a plan, the model's facts and this machine.

Advice never blocks. Each rule speaks once, gives its numbers, and where there is a better choice
names it as changes of the plan; a plan with the change taken no longer draws that advice.
"""

from collections.abc import Callable, Iterator

from engine.advice import official, quantization, surroundings, windows
from engine.advice.case import SMALL_MODEL, Advice, Case, Severity
from engine.estimate import estimate
from engine.machine import Machine
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan, with_defaults

__all__ = ["SMALL_MODEL", "Advice", "Severity", "advise"]


def advise(plan: ExportPlan, facts: ModelFacts | None, machine: Machine | None = None) -> list[Advice]:
    """The advice for `plan`, warnings first.

    Without `facts`, as while a model is still on the Hub, or for a model that the embedded compiler
    does not know, only what the plan alone tells; without `machine`, nothing about disk and memory.
    """
    known = facts if facts is not None and facts.spec is not None else None
    filled = with_defaults(plan, known.max_context if known else None)
    found = [advice for rule in PLAN_RULES for advice in rule(filled, known)]
    if known is not None:
        case = Case(plan=filled, facts=known, sizes=estimate(known, filled), machine=machine)
        found += [advice for rule in MODEL_RULES for advice in rule(case)]
    return sorted(found, key=lambda advice: advice.severity != "warning")


PLAN_RULES: tuple[Callable[[ExportPlan, ModelFacts | None], Iterator[Advice]], ...] = (
    windows.prefill_above_context,
    windows.both_windows,
    surroundings.tensor_parallel,
    quantization.shader_f16,
)
MODEL_RULES: tuple[Callable[[Case], Iterator[Advice]], ...] = (
    quantization.small_model,
    quantization.f16_range,
    quantization.tied_embedding,
    windows.prefill_above_window,
    windows.context_above_model,
    windows.rolling_above_model,
    windows.buffers,
    windows.batch,
    surroundings.chat_template,
    surroundings.machine,
    official.gemma3,
    official.rope_parameters,
)
