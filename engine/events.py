"""What a run says while it runs, and the JSON form of it.

`--json` prints one object per event and line: {"event": "Progress", ...fields}.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.errors import Fix

StageName = Literal["fetch", "convert_weight", "gen_config", "compile", "verify"]
Outcome = Literal["done", "skipped", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The plan was accepted; `stages` are those that will be visited, in order.

    `backend` says which backend runs them, and why it.
    """

    output: str
    log: str
    backend: str
    stages: tuple[StageName, ...]


@dataclass(frozen=True, kw_only=True)
class Advised:
    """A piece of `engine.advice`; it comes as soon as the model is there to be looked at."""

    code: str
    severity: Literal["note", "warning"]
    message: str


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """A stage begins; `command` is the exact argument vector, empty for work of the runner itself."""

    stage: StageName
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Output:
    """Lines that the stage printed, in order, without terminal codes or line ends."""

    stage: StageName
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage is, in its own unit; `total` is None where it cannot be known."""

    stage: StageName
    done: int
    total: int | None
    unit: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StageEnded:
    """A stage ended; `what`, `why`, `remedy`, `fix` tell a failure, `detail` why it was skipped."""

    stage: StageName
    outcome: Outcome
    seconds: float
    exit_code: int | None = None
    detail: str = ""
    what: str = ""
    why: str = ""
    remedy: str = ""
    fix: Fix = ""


GENERATION = "generation"
"""The check that a library generates, on machines that can run it."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One fact that was verified about the written artifacts."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    """The run is over; `exit_code` is that of the headless command, `checks` what was verified."""

    outcome: Outcome
    exit_code: int
    seconds: float
    output: str
    files: tuple[tuple[str, int], ...] = ()
    checks: tuple[Check, ...] = field(default=())


Event = RunStarted | Advised | StageStarted | Output | Progress | StageEnded | RunEnded


def to_json(event: Event) -> str:
    """One line of JSON for `event`; what is no Unicode, as in some file names, stays escaped."""
    text = json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)}, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def progress_of(stage: StageName, body: Mapping[str, Any]) -> Progress | None:
    """The event of a progress record (`engine.narrate`), None for one that makes no sense."""
    match body:
        case {"done": int(done), "total": int() | None as total, "unit": str(unit)}:
            detail = str(body.get("detail", ""))
            return Progress(stage=stage, done=done, total=total, unit=unit, detail=detail)
    return None


def checks_of(body: Mapping[str, Any]) -> tuple[Check, ...]:
    """The check of a check record; none for one that makes no sense."""
    match body:
        case {"name": str(name), "passed": bool(passed), "found": str(found)}:
            return (Check(name=name, passed=passed, found=found),)
    return ()
