"""A plan that was found possible, and its commands."""

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from engine import machine
from engine.advice import Advice, advise
from engine.backends import auto
from engine.backends.base import Backend, Folders, StageCommand, library_name
from engine.errors import UsageError
from engine.model import facts as model_facts
from engine.model import source as model_source
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan, resolve

UNKNOWN_SNAPSHOT = Path("SNAPSHOT")
"""Stands in commands for the folder that fetch will name."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan that was found possible: `facts` is None while the model is on the Hub."""

    plan: ExportPlan
    output: Path
    backend: Backend
    reason: str
    facts: ModelFacts | None

    @property
    def folders(self) -> Folders:
        """Where the stages read and write."""
        return Folders(source=self.facts.folder if self.facts else UNKNOWN_SNAPSHOT, output=self.output)

    def commands(self) -> tuple[StageCommand, ...]:
        """Every command of the run, in order: what a dry run shows, the log holds and the run runs."""
        hub = model_source.kind(self.plan.source) == "hub"
        return (
            *((fetch_command(self.plan, self.backend),) if hub else ()),
            *self.backend.commands(self.plan, self.folders),
            verify_command(self.output, library_name(self.plan) if self.plan.compile else None),
        )

    def advice(self) -> list[Advice]:
        """What could be chosen better, as far as plan and model are known."""
        return advise(self.plan, self.facts, machine.inspect(self.output))

    def with_model(self, folder: Path) -> "Job":
        """The job once its model is in `folder`; raises what makes the model unusable."""
        facts = model_facts.read(folder, self.plan.model_type)
        self.backend.check(self.plan, facts)
        return dataclasses.replace(self, plan=resolve(self.plan, facts.max_context), facts=facts)


def prepare(plan: ExportPlan, backend: Backend | None = None) -> Job:
    """Check all that can be checked before any work; nothing is written.

    Raises a WizardError that says what is wrong with the plan, the model or this machine.
    """
    folder = model_source.local_folder(plan.source)
    output = Path(os.path.abspath(plan.output))  # noqa: PTH100  resolve() would follow links
    if folder is not None and output.resolve() == folder.resolve():
        raise UsageError(
            f"The output {output} is the folder of the model itself.",
            remedy="Choose another with --output or output.directory.",
        )
    facts = model_facts.read(folder, plan.model_type) if folder else None
    reason = f"{backend.name} backend." if backend else ""
    if backend is None:
        backend, reason = auto.choose(plan, facts)
    resolved = resolve(plan, facts.max_context if facts else None)
    # What a Hub model leaves open depends on its own maximum: filled in once it is here.
    return Job(plan=resolved if facts else plan, output=output, backend=backend, reason=reason, facts=facts)


def fetch_command(plan: ExportPlan, backend: Backend) -> StageCommand:
    """The command that brings a Hub model into the Hub client's own cache.

    A model that the embedded compiler does not know is refused there, before its weights are fetched.
    """
    revision = ("--revision", plan.revision) if plan.revision else ()
    known = ("--embedded-model-type", plan.model_type) if backend.name == "embedded" else ()
    return StageCommand(
        stage="fetch",
        argv=(sys.executable, "-P", "-m", "engine.model.hub", plan.source, *revision, *known),
    )


def verify_command(output: Path, library: str | None = None) -> StageCommand:
    """The command that checks what was written; `library` is the model library that must be there."""
    named = ("--library", library) if library else ()
    return StageCommand(
        stage="verify", argv=(sys.executable, "-P", "-m", "engine.artifacts", str(output), *named)
    )
