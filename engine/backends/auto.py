"""Which backend does a plan, and why."""

from engine.backends.base import Backend
from engine.backends.embedded import EmbeddedBackend
from engine.errors import UsageError
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan


def choose(plan: ExportPlan, facts: ModelFacts | None) -> tuple[Backend, str]:
    """The backend for `plan`, checked, and one sentence that says why it was taken.

    `facts` is None while the model is on the Hub. Raises UsageError for a
    backend that this version does not have, and what `Backend.check` raises.
    """
    if plan.backend not in ("auto", "embedded"):
        raise UsageError(
            f"engine.backend = {plan.backend!r}: this version has only the embedded backend.",
            remedy='Leave engine.backend out of the preset, or set it to "auto" or "embedded".',
        )
    backend = EmbeddedBackend()
    backend.check(plan, facts)
    if plan.backend == "embedded":
        return backend, "embedded backend: the plan names it."
    covered = ["this model"] if facts else []
    covered += [plan.quantization, plan.device] if plan.compile else [plan.quantization]
    return backend, f"embedded backend: it covers {', '.join(covered)}, and needs nothing else installed."
