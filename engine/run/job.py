"""A plan that was found possible, and its commands."""

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from engine import machine, paths
from engine.advice import Advice, advise
from engine.backends import auto
from engine.backends.base import Backend, Folders, StageCommand, compiler_of, library_name
from engine.backends.official import interpreter
from engine.errors import UsageError
from engine.model import facts as model_facts
from engine.model import source as model_source
from engine.model.facts import ModelFacts
from engine.plan import BackendName, ExportPlan, resolve

UNKNOWN_SNAPSHOT, UNKNOWN_ADAPTER = Path("SNAPSHOT"), Path("ADAPTER")
"""Stand in commands for the folders that fetch will name."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan that was found possible.

    `facts` is None while the model is on the Hub, `adapter` while the plan's adapter is, or has none.
    """

    plan: ExportPlan
    output: Path
    backend: Backend
    reason: str
    facts: ModelFacts | None
    adapter: Path | None = None

    @property
    def folders(self) -> Folders:
        """Where the stages read and write."""
        unknown = UNKNOWN_ADAPTER if self.plan.lora_adapter else None
        return Folders(
            source=self.facts.folder if self.facts else UNKNOWN_SNAPSHOT,
            output=self.output,
            adapter=self.adapter or unknown,
        )

    def commands(self) -> tuple[StageCommand, ...]:
        """Every command of the run, in order: what a dry run shows, the log holds and the run runs."""
        return (
            *fetch_commands(self.plan, self.backend),
            *self.backend.commands(self.plan, self.folders),
            verify_command(
                self.output,
                library_name(self.plan) if self.plan.compile else None,
                compiler_of(self.backend),
            ),
        )

    def advice(self) -> list[Advice]:
        """What could be chosen better, as far as plan and model are known."""
        compiler = compiler_of(self.backend)
        taken = next((name for name in get_args(BackendName) if name == compiler), self.plan.backend)
        plan = dataclasses.replace(self.plan, backend=taken)
        return advise(plan, self.facts, machine.inspect(self.output))

    def with_fetched(self, told: Mapping[str, Any]) -> "Job":
        """The job with what the fetch stage told: the folders of model and adapter, and their commits.

        Raises a WizardError for what makes them unusable.
        """
        adapter, plan = self.adapter, self.plan
        if "adapter_folder" in told:
            adapter = Path(told["adapter_folder"])
            repo_id = plan.lora_adapter.partition("@")[0]
            plan = dataclasses.replace(plan, lora_adapter=f"{repo_id}@{told['adapter_revision']}")
        folder = Path(told["folder"]) if "folder" in told else model_source.local_folder(plan.source)
        assert folder is not None
        return dataclasses.replace(self, plan=plan, adapter=adapter).with_model(folder)

    def with_model(self, folder: Path) -> "Job":
        """The job once its model is in `folder`; raises what makes the model unusable."""
        facts = model_facts.read(folder, self.plan.model_type, lora_adapter=self.adapter)
        backend, reason = self.backend, self.reason
        if self.plan.backend == "auto" and backend.name in get_args(BackendName):
            backend, reason = auto.choose(self.plan, facts)  # now that the model is known
        else:
            backend.check(self.plan, facts)
        plan = resolve(self.plan, facts.max_context)
        return dataclasses.replace(self, plan=plan, facts=facts, backend=backend, reason=reason)


def prepare(plan: ExportPlan, backend: Backend | None = None) -> Job:
    """Check all that can be checked before any work; nothing is written.

    Raises a WizardError that says what is wrong with the plan, the model or this machine.
    """
    folder = model_source.local_folder(plan.source)
    output = Path(os.path.abspath(plan.output))  # noqa: PTH100  resolve() would follow links
    if folder is not None and paths.are_same(output, folder):
        raise UsageError(
            f"The output {output} is the folder of the model itself.",
            remedy="Choose another.",
            fix="output",
        )
    place = model_source.adapter_place(plan.lora_adapter) if plan.lora_adapter else None
    adapter = place if isinstance(place, Path) else None
    facts = model_facts.read(folder, plan.model_type, lora_adapter=adapter) if folder else None
    reason = f"{backend.name} backend." if backend else ""
    if backend is None:
        backend, reason = auto.choose(plan, facts)
    resolved = resolve(plan, facts.max_context if facts else None)
    # What a Hub model leaves open depends on its own maximum: filled in once it is here.
    return Job(
        plan=resolved if facts else plan,
        output=output,
        backend=backend,
        reason=reason,
        facts=facts,
        adapter=adapter,
    )


def fetch_commands(plan: ExportPlan, backend: Backend) -> tuple[StageCommand, ...]:
    """The commands that bring a model and an adapter of the Hub into the Hub client's own cache.

    A model that the embedded compiler does not know is refused there, before its weights are fetched,
    unless there is an mlc_llm, which may know it.
    """
    found = []
    if plan.lora_adapter and not isinstance(place := model_source.adapter_place(plan.lora_adapter), Path):
        # First, as it is small: one that cannot be merged is told before gigabytes are fetched.
        found.append((place[0], *(("--revision", place[1]) if place[1] else ()), "--lora-adapter"))
    if model_source.kind(plan.source) == "hub":
        revision = ("--revision", plan.revision) if plan.revision else ()
        alone = plan.backend == "embedded" or not interpreter.find(plan.interpreter)
        refused = backend.name == "embedded" and alone
        known = ("--embedded-model-type", plan.model_type) if refused else ()
        found.append((plan.source, *revision, *known))
    program = (sys.executable, "-P", "-m", "engine.model.hub")
    return tuple(StageCommand(stage="fetch", argv=(*program, *arguments)) for arguments in found)


def placeholders_told(commands: Iterable[StageCommand]) -> str:
    """What UNKNOWN_SNAPSHOT and UNKNOWN_ADAPTER stand for in `commands`; empty where neither is in them."""
    words = {word.partition(":")[0] for command in commands for word in command.argv}
    found = [str(place) for place in (UNKNOWN_ADAPTER, UNKNOWN_SNAPSHOT) if str(place) in words]
    match found:
        case [one]:
            return f"{one} stands for the folder that the first command tells"
        case [one, other]:
            return f"{one} and {other} stand for the folders that the first two commands tell"
    return ""


def verify_command(output: Path, library: str | None = None, maker: str = "") -> StageCommand:
    """The command that checks what was written; `library` is the model library that must be there.

    `maker` is the backend that made the export, empty where its receipt has to say so.
    """
    named: tuple[str, ...] = ("--library", library) if library else ()
    named += ("--made-by", maker) if maker == "mlc_llm" else ()
    return StageCommand(
        stage="verify", argv=(sys.executable, "-P", "-m", "engine.artifacts", str(output), *named)
    )
