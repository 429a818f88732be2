"""What can be chosen for a model: every quantization and every target, each with its sizes or its reason.

A choice is refused by the same checks that a run makes, so nothing is offered that a run would refuse.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.advice import Advice, advise
from engine.backends import auto
from engine.backends.base import library_name
from engine.catalog import QUANTIZATIONS, TARGETS, Quantization, Target
from engine.errors import WizardError
from engine.estimate import Estimate, estimate
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan

Refuse = Callable[[ExportPlan, ModelFacts | None], WizardError | None]
"""Why a plan cannot be done, or None."""

_BITS = {"float16": 16, "bfloat16": 16, "float32": 32}
_ABOUT_QUANTIZATION = frozenset(
    {"q4-small-model", "f16-range", "q4-tied-embedding", "shader-f16", "buffer-too-large"}
)


@dataclass(frozen=True, kw_only=True)
class QuantizationChoice:
    """`sizes` is None while the model's shapes are not known; `refused` is None where it can be had.

    `warnings` are those that this quantization alone draws.
    """

    quantization: Quantization
    sizes: Estimate | None = None
    refused: WizardError | None = None
    warnings: tuple[Advice, ...] = ()

    @property
    def bits_per_weight(self) -> float:
        """Bits of memory a parameter: of this model, or of a large matrix where it is not known."""
        return self.sizes.bits_per_parameter if self.sizes else nominal_bits(self.quantization)


@dataclass(frozen=True, kw_only=True)
class TargetChoice:
    """`library` is the file that compiling makes; `lacks` says why it cannot be made here.

    `backend` is the name of the one that makes it, empty where none does.
    """

    target: Target
    library: str
    lacks: WizardError | None = None
    backend: str = ""

    @property
    def compiles(self) -> bool:
        """Whether this version, on this machine, compiles for the target."""
        return self.lacks is None


def nominal_bits(quantization: Quantization) -> float:
    """Bits that a weight takes: its share of a word, and of the scale (and zero point) of its group."""
    scale = _BITS[quantization.model_dtype]
    if quantization.bits is None:
        return scale
    zero_point = quantization.bits if quantization.from_awq else 0
    return 32 / quantization.elements_per_word + (scale + zero_point) / quantization.group_size


def refusal(plan: ExportPlan, facts: ModelFacts | None) -> WizardError | None:
    """Why no backend of this version can do `plan` on this machine, or None, without waiting for anything."""
    try:
        auto.choose(plan, facts, wait=False)
    except WizardError as error:
        return error
    return None


def quantization_choices(
    plan: ExportPlan, facts: ModelFacts | None, refuse: Refuse = refusal
) -> tuple[QuantizationChoice, ...]:
    """Every quantization of the catalog, for the model, the backend and the target of `plan`.

    Where the target refuses all of them alike, the target is what has to change: none is refused here
    then, unless the backend cannot even convert the weights.
    """
    plans = {name: replace(plan, quantization=name) for name in QUANTIZATIONS}
    convert = {name: refuse(replace(p, compile=False), facts) for name, p in plans.items()}
    library = {name: refuse(p, facts) if plan.compile else None for name, p in plans.items()}
    if all(library.values()):
        library = dict.fromkeys(plans)
    known = facts if facts is not None and facts.spec is not None else None
    return tuple(
        QuantizationChoice(
            quantization=QUANTIZATIONS[name],
            sizes=estimate(known, p) if known else None,
            refused=convert[name] or library[name],
            warnings=tuple(
                advice
                for advice in advise(p, known)
                if advice.severity == "warning" and advice.code in _ABOUT_QUANTIZATION
            ),
        )
        for name, p in plans.items()
    )


def target_choices(
    plan: ExportPlan, facts: ModelFacts | None, refuse: Refuse = refusal
) -> tuple[TargetChoice, ...]:
    """Every target of the catalog, for the model, the quantization and the backend of `plan`."""
    plans = {name: replace(plan, device=name, compile=True) for name in TARGETS}
    return tuple(
        TargetChoice(
            target=TARGETS[name],
            library=library_name(p),
            lacks=refuse(p, facts),
            backend=taken(p, facts).backend if refuse(p, facts) is None else "",
        )
        for name, p in plans.items()
    )


def taken(plan: ExportPlan, facts: ModelFacts | None) -> ExportPlan:
    """`plan` with the backend that "auto" stands for, without waiting; as it is where none can do it."""
    try:
        return replace(plan, backend=auto.choose(plan, facts, wait=False)[0].name)  # type: ignore[arg-type]  # one of ours
    except WizardError:
        return plan


def with_device(plan: ExportPlan, device: str, *, library: bool, facts: ModelFacts | None) -> ExportPlan:
    """`plan` for `device`: with a model library where one is wanted and can be made, else weights only."""
    chosen = replace(plan, device=device, compile=True)
    return chosen if library and refusal(chosen, facts) is None else replace(chosen, compile=False)
