"""The checks of a finished export, again: in a child, as a library that is run may do anything."""

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from engine import process
from engine.errors import Cancelled
from engine.events import Check, Output, Progress, checks_of, progress_of
from engine.run import failure
from engine.run.job import verify_command

_REMEDY = "Run every stage again, into the same folder."
"""Where the checks themselves know none."""


def verify(output: Path, cancel: threading.Event) -> Generator[Output | Progress | Check]:
    """Check the export in `output`, and yield what the checks say as they say it.

    Raises UsageError where there is no export, StageError where the checks come to no end, and
    Cancelled after `cancel`. Closing the generator ends them, too.
    """
    told: Mapping[str, Any] | None = None
    tail: deque[str] = deque(maxlen=50)
    with contextlib.closing(process.stream(verify_command(output).argv, cancel)) as items:
        for item in items:
            match item:
                case process.Lines(lines):
                    tail.extend(line for line in lines if line.strip())
                    yield Output(stage="verify", lines=lines)
                case process.Record("progress", body):
                    if progress := progress_of("verify", body):
                        yield progress
                case process.Record("check", body):
                    yield from checks_of(body)
                case process.Record("error", body):
                    told = body
                case process.Exited(_, True):
                    raise Cancelled("Stopped.")
                case process.Exited(code, _) if code != 0:
                    error = failure.of_stage("verify", code, told, tail, output=output, remedy=_REMEDY)
                    if error.remedy.endswith(_REMEDY):
                        error.fix = "fresh"
                    raise error
