"""What a stage says while it works: lines for people, records for the runner.

Lines go to stderr. Under the runner (MLC_WIZARD_RECORDS=1) progress and errors go to stderr too, as
JSON text sequences (RFC 7464: the record separator 0x1E, one JSON object, a line feed), so that they
keep their place among the lines; by hand, progress is a plain line at most once a second.

{"progress": {"done": int, "total": int | null, "unit": str, "detail": str}}
{"error": {"what": str, "why": str, "remedy": str, "exit_code": int, "kind": str}}  kind: its class
{"check": {"name": str, "passed": bool, "found": str}}
{"result": {...}}  what the stage leaves to those after it, beside its files; by hand, JSON on stdout
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from engine.errors import WizardError
from engine.events import Check

RECORDS_VARIABLE = "MLC_WIZARD_RECORDS"
RECORD_SEPARATOR = "\x1e"

_last_shown = 0.0


def records() -> bool:
    """Whether the runner listens, which wants records."""
    return os.environ.get(RECORDS_VARIABLE) == "1"


def _write(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say(line: str) -> None:
    """One line of narration."""
    _write(line)


def progress(done: int, total: int | None, unit: str, detail: str = "") -> None:
    """`done` of `total` `unit`s (total None where unknown); safe to call often."""
    global _last_shown  # noqa: PLW0603  the clock of the only process-wide stream
    now = time.monotonic()
    finished = total is not None and done >= total
    if not finished and now - _last_shown < (0.05 if records() else 1.0):
        return
    _last_shown = now
    if records():
        record("progress", {"done": done, "total": total, "unit": unit, "detail": detail})
    else:
        _write(f"{done}/{total if total is not None else '?'} {unit} {detail}".rstrip())


def record(kind: str, body: Mapping[str, Any]) -> None:
    """A record of that kind, for whoever listens."""
    _write(RECORD_SEPARATOR + json.dumps({kind: dict(body)}))


def failed(error: WizardError) -> None:
    """Tell `error`: as a record under the runner, else as its message."""
    if records():
        record("error", error_record(error))
    else:
        _write(str(error))


def error_record(error: WizardError) -> dict[str, str | int]:
    """`error` as a record has it."""
    return {
        "what": error.what,
        "why": error.why,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
        "kind": type(error).__name__,
    }


def check(done: Check) -> None:
    """Tell a check of the verify stage."""
    if records():
        record("check", dataclasses.asdict(done))
    else:
        _write(f"{'ok    ' if done.passed else 'FAILED'} {done.name}: {done.found}")


def result(values: Mapping[str, str]) -> None:
    """Tell the runner `values`, which later stages need."""
    if records():
        record("result", values)
    else:
        sys.stdout.write(json.dumps(dict(values)) + "\n")
        sys.stdout.flush()
