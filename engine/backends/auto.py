"""Which backend does a plan, and why."""

from engine import cuda
from engine.backends.base import Backend
from engine.backends.docker import inspection as docker_inspection
from engine.backends.docker.backend import DockerBackend
from engine.backends.embedded import EmbeddedBackend
from engine.backends.official import inspection, interpreter
from engine.backends.official.backend import OfficialBackend
from engine.backends.official.inspection import Inspection
from engine.errors import ToolchainError, WizardError
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan


def choose(plan: ExportPlan, facts: ModelFacts | None, *, wait: bool = True) -> tuple[Backend, str]:
    """The backend for `plan`, checked, and one sentence that says why it was taken.

    "auto" takes the embedded one where it covers model, quantization and target, else mlc_llm where an
    interpreter has it, else docker. `facts` is None while the model is on the Hub. Looking into an
    interpreter takes seconds, once: without `wait`, as on a screen, one that nobody looked into yet counts
    as one that works. Docker, which is seldom there, is asked in the background meanwhile.

    Raises what `Backend.check` raises.
    """
    if plan.backend == "docker":
        docker = DockerBackend() if wait else DockerBackend.unasked()
        docker.check(plan, facts)
        return docker, f"docker backend: the plan names it; {docker.reason()}"
    if plan.backend == "mlc_llm":
        official = _official(plan, facts, wait=wait)
        return official, f"mlc_llm backend: the plan names it; {official.found.told}."
    backend = EmbeddedBackend()
    try:
        backend.check(plan, facts)
    except WizardError as lack:
        if plan.backend == "embedded":
            raise
        return _instead(plan, facts, lack, wait=wait)
    if plan.backend == "embedded":
        return backend, "embedded backend: the plan names it."
    covered = ["this model"] if facts else []
    covered += [plan.quantization, plan.device] if plan.compile else [plan.quantization]
    nvidia = plan.compile and plan.device == "cuda"
    needs = f"with {cuda.compiler()}" if nvidia else "and needs nothing else installed"
    return backend, f"embedded backend: it covers {', '.join(covered)}, {needs}."


def _instead(
    plan: ExportPlan, facts: ModelFacts | None, lack: WizardError, *, wait: bool
) -> tuple[Backend, str]:
    """Who does what the embedded backend cannot; raises `lack` where nobody does, with what would help."""
    try:
        official = _official(plan, facts, wait=wait)
    except WizardError as refused:
        if docker := _in_docker(plan, facts, wait=wait):
            return docker, f"docker backend: {lack.what} It runs {docker.reason()}"
        if not isinstance(refused, ToolchainError):
            raise lack from None  # nobody can do it, or mlc_llm as little as we
        also = f"mlc_llm, the official compiler, may cover it: {refused.what}"
        raise type(lack)(
            lack.what,
            why="\n".join(part for part in (lack.why, also) if part),
            remedy="\n".join(part for part in (lack.remedy, refused.remedy) if part),
            fix=lack.fix,
        ) from None
    return official, f"mlc_llm backend: {lack.what} Taken instead: {official.found.told}."


def _official(plan: ExportPlan, facts: ModelFacts | None, *, wait: bool) -> OfficialBackend:
    """The backend mlc_llm, checked for `plan`. Raises ToolchainError where there is none that works."""
    OfficialBackend.check_limits(plan, facts)
    candidates = interpreter.find(plan.interpreter)
    if not candidates:
        raise ToolchainError("No mlc_llm was found here.", remedy=inspection.REMEDY)
    if wait:
        looked = inspection.look(plan.interpreter)
    else:
        looked = [inspection.known(c) or Inspection(candidate=c, module="mlc_llm") for c in candidates]
    found = next((one for one in looked if one.problem is None), None)
    if found is None:
        first, *others = looked
        assert first.problem is not None
        raise ToolchainError(
            first.problem.what,
            why="\n".join([first.problem.why, *(one.told for one in others)]).strip(),
            remedy=first.problem.remedy,
        )
    backend = OfficialBackend(found=found)
    backend.check(plan, facts)
    return backend


def _in_docker(plan: ExportPlan, facts: ModelFacts | None, *, wait: bool) -> DockerBackend | None:
    """The docker backend, where there is a docker that can do `plan`; without `wait`, where that is known."""
    if docker_inspection.client() is None:
        return None
    docker = DockerBackend() if wait else DockerBackend.unasked()
    try:
        docker.check(plan, facts)
    except WizardError:
        return None
    if not docker.was_asked:
        docker_inspection.ask()
        return None
    return docker
