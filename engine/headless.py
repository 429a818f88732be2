"""The front end without screens: data on stdout, narration on stderr, an exit code.

0 done, 1 a stage or a check failed, 2 usage or preset, 3 toolchain missing, 4 not authorised,
130 cancelled.
"""

import contextlib
import dataclasses
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from engine import preset, runner
from engine.backends.official import inspection
from engine.catalog import TARGETS, target_of
from engine.console import Console, data, stopping
from engine.errors import Fix, WizardError
from engine.events import (
    GENERATION,
    Advised,
    Check,
    Event,
    Output,
    Progress,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    to_json,
)
from engine.explain import is_noise
from engine.layout import RECEIPT_NAME
from engine.plan import ExportPlan
from engine.process import clean
from engine.run import verification
from engine.run.job import Job, placeholders_told, prepare
from engine.shell import shell_line
from engine.units import megabytes

_SHARD = re.compile(r"params_shard_(\d+)\.bin")


def run(plan: ExportPlan, *, fresh: bool = False, as_json: bool = False) -> int:
    """Run `plan` to its end; stdout gets the export's folder, or with `as_json` every event.

    ctrl+c stops the run in good order, a second one at once. Raises WizardError where the plan
    cannot be run at all.
    """
    console = Console(sys.stderr)
    cancel = threading.Event()
    narrator = _Narrator(console)
    code = 1
    with (
        stopping(cancel, console),
        inspection.told_to(console.line),
        contextlib.closing(runner.run(plan, cancel, fresh=fresh)) as events,
    ):
        for event in events:
            if as_json:
                data(to_json(event))
            narrator.tell(event)
            if isinstance(event, RunEnded):
                code = event.exit_code
                if event.outcome == "done" and not as_json:
                    data(event.output)
    return code


def dry_run(plan: ExportPlan, *, as_json: bool = False) -> int:
    """Print the exact commands that a run of `plan` has, and touch nothing.

    Raises WizardError where the plan cannot be run.
    """
    console = Console(sys.stderr)
    with inspection.told_to(console.line):
        job = prepare(plan)
    console.line(job.reason)
    for advice in job.advice():
        _tell_advice(console, Advised(code=advice.code, severity=advice.severity, message=advice.message))
    _tell_places(console, job)
    for command in job.commands():
        if as_json:
            data(to_json(StageStarted(stage=command.stage, command=command.argv)))
        else:
            data(shell_line(command.argv))
    return 0


def list_presets(*, as_json: bool = False) -> int:
    """Print the name and one line about every preset that a name finds."""
    entries = preset.list_presets()
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        told = f"cannot be used: {entry.error.splitlines()[0]}" if entry.error else entry.description
        if as_json:
            fields = {"name": entry.name, "origin": entry.origin, "path": str(entry.path)}
            data(json.dumps({**fields, "description": entry.description, "error": entry.error}))
        else:
            data(f"{entry.name:{width}}  {told}".rstrip())
    return 0


def verify(output: Path, *, as_json: bool = False) -> int:
    """Check the export in `output` again; 1 where a check fails.

    Raises UsageError where there is no export, StageError where the checks themselves come to no end.
    """
    console = Console(sys.stderr)
    checks: list[Check] = []
    cancel = threading.Event()
    with stopping(cancel, console), contextlib.closing(verification.verify(output, cancel)) as said:
        for item in said:
            match item:
                case Output():
                    for line in item.lines:
                        console.line(f"  {line}")
                case Progress():
                    console.status(_progress(item))
                case Check():
                    checks.append(item)
                    _tell_check(console, item)
                    if as_json:
                        data(json.dumps(dataclasses.asdict(item)))
    failed = sum(not check.passed for check in checks)
    if failed:
        console.line(f"{failed} of {len(checks)} checks failed.", "red")
        console.line("Export it again into the same folder: the stages of damaged files are redone.")
    else:
        console.line(f"All {len(checks)} checks passed.", "green")
    if not as_json:
        data("failed" if failed else "ok")
    return 1 if failed else 0


def tell(error: WizardError) -> int:
    """Print `error` on stderr, and return its exit code."""
    console = Console(sys.stderr)
    what, *rest = _all_of(error)
    console.line(f"{console.paint('error:', 'red')} {what}")
    for line in rest:
        console.line(f"  {line}")
    return error.exit_code


_BY_FLAG: Mapping[Fix, str] = {
    "output": "--output DIR chooses the folder.",
    "compile": "--no-compile makes weights and configuration only.",
    "fresh": "--fresh runs every stage again.",
    "resume": "The same command goes on from there.",
}
"""How a remedy is followed on the command line."""


def _all_of(told: WizardError | StageEnded) -> list[str]:
    """A failure, line by line, with the flag that helps; what files say in it commands no terminal."""
    parts = (told.what, told.why, told.remedy, _BY_FLAG.get(told.fix, ""))
    return [clean(line) for part in parts for line in part.splitlines()]


class _Narrator:
    """Events in words."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: Sequence[str] = ()

    def tell(self, event: Event) -> None:
        """Say what `event` says."""
        console = self._console
        match event:
            case RunStarted():
                self._stages = event.stages
                console.line(f"Exporting to {event.output}", "bold")
                console.line(f"  {event.backend}")
            case Advised():
                _tell_advice(console, event)
            case StageStarted():
                console.line()
                console.line(self._header(event.stage), "bold")
                console.line(f"  + {shell_line(event.command)}", "dim")
                console.reset_clock()
            case Output():
                for line in event.lines:
                    console.line(f"  {line}", "dim" if is_noise(line) else None)
            case Progress():
                console.status(_progress(event))
            case StageEnded():
                self._stage_ended(event)
            case RunEnded():
                self._run_ended(event)

    def _header(self, stage: str) -> str:
        number = self._stages.index(stage) + 1 if stage in self._stages else 0
        return f"[{number}/{len(self._stages)}] {stage}"

    def _stage_ended(self, event: StageEnded) -> None:
        console, seconds = self._console, duration(event.seconds)
        if event.outcome == "done":
            console.ends(f"  {console.good} {event.stage}", seconds, "green")
        elif event.outcome == "skipped":
            console.line()
            console.line(f"{self._header(event.stage)}: skipped, {event.detail}", "dim")
        else:
            colour = "red" if event.outcome == "failed" else "yellow"
            mark = console.bad if event.outcome == "failed" else console.warning
            console.ends(f"  {mark} {event.stage} {event.outcome}", seconds, colour)
            for line in _all_of(event):
                console.line(f"    {line}")

    def _run_ended(self, event: RunEnded) -> None:
        console = self._console
        if event.outcome != "done":
            return
        console.line()
        console.ends(f"{console.good} Exported", duration(event.seconds), "green")
        for name, size in grouped(event.files, console.ellipsis):
            gap = max(console.width - len(name) - len(size) - 2, 2)
            console.line(f"  {name}{' ' * gap}{size}")
        console.line()
        for check in event.checks:
            _tell_check(console, check)
        if where := _not_run(event):
            console.line(f"  - generation: not run here; {where}")
        console.line()
        if record := record_told(event):
            console.line(record)
        console.line("Next:")
        console.line(f"  {shell_line(['mlc-wizard', 'verify', event.output])}   check it again, anywhere")


def record_told(event: RunEnded) -> str:
    """What the receipt holds for whoever loads the library; empty where nobody needs it."""
    suffixes = {PurePath(name).suffix for name, _ in event.files}
    if ".wasm" in suffixes:
        return f"For WebLLM, add the record in {RECEIPT_NAME} to its model_list."
    if ".tar" in suffixes:
        return f"For an app, add the entry in {RECEIPT_NAME} to its mlc-package-config.json."
    return ""


def _not_run(event: RunEnded) -> str:
    """Where the library of an export runs, if it was not run; empty where it was, or there is none."""
    if any(check.name == GENERATION for check in event.checks):
        return ""
    for name, _ in event.files:
        found = TARGETS.get(target_of(name))
        if found is not None:
            called = "WebGPU" if found.name == "webgpu" else found.name
            return f"a library for {called} runs in {found.runs_in}"
    return ""


def _tell_check(console: Console, check: Check) -> None:
    mark, colour = (console.good, "green") if check.passed else (console.bad, "red")
    console.line(f"  {console.paint(mark, colour)} {check.name}: {check.found}")


def _tell_advice(console: Console, advice: Advised) -> None:
    mark = console.paint(console.warning, "yellow") if advice.severity == "warning" else "-"
    console.line(f"  {mark} {advice.code}: {advice.message}")


def _tell_places(console: Console, job: Job) -> None:
    console.line(f"Each stage writes beside its final place; its files move to {job.output} when it is done.")
    told = placeholders_told(job.commands())
    if job.facts is None:
        console.line(f"{told}; what the preset leaves open is decided when the model is there.")
    elif told:
        console.line(f"{told}.")


def _progress(event: Progress) -> str:
    done, total = event.done, event.total
    if event.unit == "bytes":
        amount = megabytes(done) if total is None else f"{megabytes(done)} of {megabytes(total)}"
    else:
        amount = f"{done} {event.unit}" if total is None else f"{done}/{total} {event.unit}"
    share = f"{100 * done // total:3d}% " if total else ""
    return f"  {event.stage}  {share}{amount}  {event.detail}".rstrip()


def grouped(files: Sequence[tuple[str, int]], ellipsis: str) -> Iterator[tuple[str, str]]:
    """Names and sizes as text, all shards of the weights in one line."""
    shards = [file for file in files if _SHARD.fullmatch(file[0])]
    if len(shards) > 1:
        total = megabytes(sum(size for _, size in shards))
        yield f"params_shard_0.bin {ellipsis} params_shard_{len(shards) - 1}.bin", total
    for name, size in files:
        if len(shards) <= 1 or (name, size) not in shards:
            yield name, megabytes(size)


def duration(seconds: float) -> str:
    """`seconds` as 1.2 s, or 2 min 5 s from a minute up."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"
