"""Which backend does a plan, and why."""

from engine.backends.base import Backend
from engine.backends.docker import inspection
from engine.backends.docker.backend import DockerBackend
from engine.backends.embedded import EmbeddedBackend
from engine.errors import UsageError, WizardError
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan


def choose(plan: ExportPlan, facts: ModelFacts | None) -> tuple[Backend, str]:
    """The backend for `plan`, checked, and one sentence that says why it was taken.

    `facts` is None while the model is on the Hub. Raises UsageError for a
    backend that this version does not have, and what `Backend.check` raises.
    """
    if plan.backend == "docker":
        docker = DockerBackend()
        docker.check(plan, facts)
        return docker, f"docker backend: the plan names it; {docker.reason()}"
    if plan.backend not in ("auto", "embedded"):
        raise UsageError(
            f"engine.backend = {plan.backend!r}: this version has no such backend.",
            remedy='Leave engine.backend out of the preset, or set it to "auto", "embedded" or "docker".',
        )
    backend = EmbeddedBackend()
    try:
        backend.check(plan, facts)
    except WizardError as lack:
        if plan.backend == "auto" and (found := _in_docker(plan, facts)):
            return found, f"docker backend: {lack.what} It runs {found.reason()}"
        raise
    if plan.backend == "embedded":
        return backend, "embedded backend: the plan names it."
    covered = ["this model"] if facts else []
    covered += [plan.quantization, plan.device] if plan.compile else [plan.quantization]
    return backend, f"embedded backend: it covers {', '.join(covered)}, and needs nothing else installed."


def _in_docker(plan: ExportPlan, facts: ModelFacts | None) -> DockerBackend | None:
    """The docker backend, where there is a docker that can do `plan`."""
    if inspection.client() is None:
        return None
    docker = DockerBackend()
    try:
        docker.check(plan, facts)
    except WizardError:
        return None
    return docker
