"""What a backend is: it turns a plan into commands, and the runner runs them, whichever made them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.catalog import TARGETS, library_suffix
from engine.errors import UsageError
from engine.events import StageName
from engine.layout import CONFIG_NAME, HOME_NAME
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where a stage reads and writes; all paths are absolute. `adapter` is the LoRA adapter, if any."""

    source: Path
    output: Path
    adapter: Path | None = None

    @property
    def config(self) -> Path:
        """The committed chat configuration, all that compile reads."""
        return self.output / CONFIG_NAME

    def building(self, stage: StageName) -> Path:
        """Where `stage` writes: beside its final place, so that a rename takes it there."""
        return self.output / HOME_NAME / f"{stage}.partial"


@dataclass(frozen=True, kw_only=True)
class StageCommand:
    """A command of a stage, and all that its result depends on beside the arguments.

    A stage may have several, run in order; those of verify tell checks as records (`narrate.check`).
    `inputs` are the files it reads; a folder stands for the files directly in it. `packages` are
    the distributions whose versions matter, `versions` those of what is installed elsewhere.
    `identity` stands for the arguments in the fingerprint where some of them change no result.
    `asked` gives versions of programs of this machine, which it may start: when a fingerprint is taken.
    """

    stage: StageName
    argv: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    packages: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    identity: tuple[str, ...] | None = None
    asked: Callable[[], Mapping[str, str]] | None = field(default=None, compare=False)


class Backend(Protocol):
    """A compiler that can be run as commands."""

    name: str

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Raise a WizardError where this backend cannot do `plan`.

        `facts` is None while the model is still on the Hub.
        """

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:
        """convert_weight, gen_config and, unless `plan.compile` is false, compile."""


def compiler_of(backend: Backend) -> str:
    """The name of the backend whose compiler works: one may run the commands of another elsewhere."""
    inner: Backend = getattr(backend, "inner", backend)
    return inner.name


def library_name(plan: ExportPlan) -> str:
    """The file name of the model library, with the suffix that the official compiler wants.

    Raises UsageError for a device that is not in the catalog, and a host that the device is not on.
    """
    target = TARGETS.get(plan.device)
    if target is None:
        raise UsageError(
            f"target.device = {plan.device!r} is not a device.", why=f"Devices are {', '.join(TARGETS)}."
        )
    return f"model-{plan.device}{library_suffix(target, plan.host)}"
