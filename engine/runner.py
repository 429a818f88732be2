"""A plan in, events out: the stages as children, each committed whole, and resumed where they ended."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from engine import paths, process
from engine.backends.base import Backend, StageCommand, compiler_of, library_name
from engine.disk import disk_error
from engine.errors import Cancelled, StageError, WizardError
from engine.events import (
    Advised,
    Check,
    Event,
    Output,
    RunEnded,
    RunStarted,
    StageEnded,
    StageName,
    StageStarted,
    checks_of,
    progress_of,
)
from engine.explain import KNOWN, Matcher
from engine.layout import RECEIPT_NAME
from engine.plan import ExportPlan
from engine.run import failure, receipt, resume
from engine.run.fingerprint import fingerprint
from engine.run.job import Job, prepare
from engine.run.log import Log
from engine.run.workspace import Workspace
from engine.shell import shell_line


def run(
    plan: ExportPlan, cancel: threading.Event, *, fresh: bool = False, backend: Backend | None = None
) -> Generator[Event]:
    """Make the export that `plan` describes, skipping the stages that are finished already.

    Raises a WizardError before the first event where the plan cannot be run at all; afterwards
    failures are told by StageEnded and RunEnded. `cancel` ends the run within seconds, closing the
    generator does too. `fresh` runs every stage again. `backend` overrides the choice by plan.
    """
    job = prepare(plan, backend)
    with Workspace.locked(job.output, library_name(plan)) as workspace, Log(job.output) as log:
        resume.remember(plan, workspace.home)
        yield from _Run(job, workspace, log, cancel).events(fresh=fresh)


class _Run:
    def __init__(self, job: Job, workspace: Workspace, log: Log, cancel: threading.Event) -> None:
        self.job = job
        self.workspace = workspace
        self.log = log
        self.cancel = cancel
        self.started = datetime.now(UTC)
        self.checks: list[Check] = []
        self.exit_code: int | None = None
        self.advised: set[str] = set()

    def events(self, *, fresh: bool) -> Iterator[Event]:
        began = time.monotonic()
        stages = tuple(dict.fromkeys(command.stage for command in self.job.commands()))
        self._open(stages, fresh=fresh)
        error: WizardError | None = None
        yield RunStarted(
            output=str(self.job.output), log=str(self.log.path), backend=self.job.reason, stages=stages
        )
        try:
            yield from self._advise()
            before = self.job.backend.name
            for stage in stages:
                yield from self._visit(stage)
                if stage == "fetch":
                    yield from self._backend_told(before)
                    yield from self._advise()
        except WizardError as ended:
            error = ended
        files = [(file.name, file.size) for file in self.workspace.files()]
        if error is None:
            files.append((RECEIPT_NAME, (self.job.output / RECEIPT_NAME).stat().st_size))
        cancelled = isinstance(error, Cancelled)
        yield RunEnded(
            outcome="done" if error is None else "cancelled" if cancelled else "failed",
            exit_code=error.exit_code if error else 0,
            seconds=time.monotonic() - began,
            output=str(self.job.output),
            files=tuple(files),
            checks=tuple(self.checks),
        )

    def _open(self, stages: tuple[StageName, ...], *, fresh: bool) -> None:
        """Take away what no longer holds."""
        self.log.write([f"run started in {self.job.output}", self.job.reason])
        receipt_path = self.job.output / RECEIPT_NAME
        try:
            # It says that the export was verified, which it no longer is once work begins.
            receipt_path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, receipt_path) from None
        if fresh:
            self.workspace.forget()
        for stage in ("fetch", "compile"):
            if stage not in stages:
                self.workspace.remove(stage)

    def _backend_told(self, before: str) -> Iterator[Event]:
        """Another backend than the one that was expected while the model was not known."""
        if self.job.backend.name != before:
            self.log.write([self.job.reason])
            yield Output(stage="fetch", lines=(self.job.reason,))

    def _advise(self) -> Iterator[Event]:
        """What was not said before: of a Hub model, more is known once it was fetched."""
        for advice in self.job.advice():
            if advice.code not in self.advised:
                self.advised.add(advice.code)
                self.log.write([f"{advice.severity}: {advice.message}"], "advice")
                yield Advised(code=advice.code, severity=advice.severity, message=advice.message)

    def _visit(self, stage: StageName) -> Iterator[Event]:
        """One stage, from its first event to its StageEnded; raises what ended it otherwise."""
        began = time.monotonic()
        self.exit_code = None
        detail = None
        try:
            self._heed_cancel(stage)
            commands = [command for command in self.job.commands() if command.stage == stage]
            print_ = fingerprint(commands, self.job.folders)
            detail = self._why_skip(stage, print_)
            if detail is None:
                yield from self._build(stage, commands, print_)
        except (WizardError, OSError) as failed:
            error = paths.told(failed) if isinstance(failed, OSError) else failed
            self.workspace.discard(stage)
            self._log_failure(stage, error)
            yield StageEnded(
                stage=stage,
                outcome="cancelled" if isinstance(error, Cancelled) else "failed",
                seconds=time.monotonic() - began,
                exit_code=self.exit_code,
                what=error.what,
                why=error.why,
                remedy=error.remedy,
                fix=error.fix,
            )
            raise error from None
        yield StageEnded(
            stage=stage,
            outcome="done" if detail is None else "skipped",
            seconds=time.monotonic() - began,
            exit_code=self.exit_code,
            detail=detail or "",
        )

    def _why_skip(self, stage: StageName, print_: str) -> str | None:
        """Why `stage` need not run, or None where it must."""
        if stage == "verify" or not self.workspace.finished(stage, print_):
            return None
        if stage == "fetch":
            result = self.workspace.stages[stage].result
            try:
                self.job = self.job.with_fetched(result)
            except (WizardError, KeyError):  # the Hub client's cache was cleaned
                return None
            revision = result.get("revision") or result["adapter_revision"]
            return f"fetched before, revision {revision}; running all again looks for a newer one"
        return "finished before, nothing it depends on has changed"

    def _heed_cancel(self, stage: StageName) -> None:
        if self.cancel.is_set():
            raise _cancelled(stage)

    def _build(self, stage: StageName, commands: list[StageCommand], print_: str) -> Iterator[Event]:
        began = time.monotonic()
        self.workspace.begin(stage)
        result: dict[str, Any] = {}
        for command in commands:
            result |= yield from self._execute(command)
        self._conclude(stage, print_, time.monotonic() - began, result)

    def _execute(self, command: StageCommand) -> Generator[Event, None, Mapping[str, Any]]:
        """Run one command to its good end; its result record."""
        stage = command.stage
        self.log.write([f"$ {shell_line(command.argv)}"], stage)
        yield StageStarted(stage=stage, command=command.argv)
        records: dict[str, Mapping[str, Any]] = {}
        tail: deque[str] = deque(maxlen=50)
        target, backend = self.job.plan.device, self.job.backend.name
        matcher = Matcher(known for known in KNOWN if known.belongs(stage, target, backend))
        with contextlib.closing(process.stream(command.argv, self.cancel)) as items:
            for item in items:
                match item:
                    case process.Lines(lines):
                        self.log.write(lines, stage)
                        matcher.feed(lines)
                        tail.extend(line for line in lines if line.strip())
                        yield Output(stage=stage, lines=lines)
                    case process.Record("progress", body):
                        if progress := progress_of(stage, body):
                            yield progress
                    case process.Record("check", body):
                        self.checks += checks_of(body)
                    case process.Record(kind, body):
                        records[kind] = body
                    case process.Exited(code, cancelled):
                        self.exit_code = code
                        if cancelled:
                            raise _cancelled(stage)
                        if code != 0:
                            told = records.get("error")
                            raise failure.of_stage(
                                stage,
                                code,
                                told,
                                tail,
                                output=self.job.output,
                                remedy=self._see_log(),
                                cause=matcher.cause(),
                            )
        return records.get("result", {})

    def _conclude(self, stage: StageName, print_: str, seconds: float, result: dict[str, Any]) -> None:
        """Accept what `stage` made, or raise what is wrong with it."""
        if stage == "verify":
            self._judge()
            self._refuse_a_mixture()
        elif stage == "fetch":
            self.job = self.job.with_fetched(result)
        elif not any(self.workspace.building(stage).iterdir()):
            raise StageError(f"{stage} ended without an error but wrote no file.", remedy=self._see_log())
        self.workspace.commit(stage, print_, seconds, result, between=lambda: self._heed_cancel(stage))
        if stage == "verify":
            self._write_receipt()

    def _judge(self) -> None:
        failed = [check for check in self.checks if not check.passed]
        if not failed and self.checks:
            return
        try:
            damaged = self.workspace.forget_damaged()
        except OSError as error:
            damaged = [str(error.filename)]
        raise StageError(
            f"{len(failed)} of {len(self.checks)} checks of the export failed: "
            + "; ".join(f"{check.name}: {check.found}" for check in failed),
            why=f"Changed since it was written: {', '.join(damaged)}." if damaged else "",
            remedy="Run again: the stages of these files will be redone." if damaged else self._not_again(),
            fix="resume" if damaged else "" if self._is_official else "fresh",
        )

    def _refuse_a_mixture(self) -> None:
        """Raise StageError where what a stage has read is another thing by now, which no check can see."""
        now: dict[StageName, list[StageCommand]] = {}
        for command in self.job.commands():
            if command.stage not in ("fetch", "verify"):
                now.setdefault(command.stage, []).append(command)
        outdated = [
            stage
            for stage, commands in now.items()
            if fingerprint(commands, self.job.folders) != self.workspace.stages[stage].fingerprint
        ]
        if outdated:
            raise StageError(
                f"The model was changed during the run: {' and '.join(outdated)} read it as it was before.",
                why="Weights and configuration may be of different models.",
                remedy="Run again: what was made of the model before is made anew.",
                fix="resume",
            )

    def _not_again(self) -> str:
        if self._is_official:
            return (
                "mlc_llm made it so, and would again. Where the embedded backend covers model and target, it "
                f'gives what transformers gives: engine.backend = "embedded". {self._see_log()}'
            )
        return f"Run every stage again. {self._see_log()}"

    @property
    def _is_official(self) -> bool:
        return compiler_of(self.job.backend) == "mlc_llm"

    def _see_log(self) -> str:
        return f"The whole log: {self.log.path}"

    def _log_failure(self, stage: StageName, error: WizardError) -> None:
        try:
            self.log.write(str(error).splitlines(), stage)
        except WizardError:
            return  # most likely the very failure being logged: a full disk

    def _write_receipt(self) -> None:
        assert self.job.facts is not None
        fetched = self.workspace.stages.get("fetch")
        receipt.write(
            self.job.output,
            plan=self.job.plan,
            facts=self.job.facts,
            revision=str(fetched.result.get("revision", "")) if fetched else "",
            backend=self.job.backend.name,
            compiler=compiler_of(self.job.backend),
            elsewhere={n: v for command in self.job.commands() for n, v in command.versions.items()},
            stages=self.workspace.stages,
            files=self.workspace.files(),
            checks=self.checks,
            started=self.started,
            finished=datetime.now(UTC),
        )


def _cancelled(stage: StageName) -> Cancelled:
    return Cancelled(f"Stopped in {stage}.", remedy="Finished stages are kept.", fix="resume")
