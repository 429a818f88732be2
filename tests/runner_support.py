"""What tests of the runner share: a plan, and its events as facts."""

import contextlib
import dataclasses
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from conftest import GOLDEN

from engine import runner
from engine.backends.base import Backend
from engine.events import Event, Output, RunEnded, StageEnded
from engine.plan import ExportPlan

GEMMA = GOLDEN / "gemma3_text"
FILES = {
    *("mlc-chat-config.json", "tensor-cache.json", "ndarray-cache.json", "params_shard_0.bin"),
    *("tokenizer.json", "tokenizer_config.json"),
}


def plan_for(folder: Path, **changes: object) -> ExportPlan:
    plan = ExportPlan(
        source=str(GEMMA / "hf"),
        quantization="q4f16_1",
        context_window_size=256,
        prefill_chunk_size=64,
        compile=False,
        output=folder / "out",
    )
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def finish(plan: ExportPlan, *, fresh: bool = False, backend: Backend | None = None) -> list[Event]:
    return list(runner.run(plan, threading.Event(), fresh=fresh, backend=backend))


def outcomes(events: list[Event]) -> dict[str, str]:
    return {e.stage: e.outcome for e in events if isinstance(e, StageEnded)}


def ended(events: list[Event]) -> RunEnded:
    assert isinstance(events[-1], RunEnded)
    return events[-1]


def failure(events: list[Event]) -> StageEnded:
    (event,) = (e for e in events if isinstance(e, StageEnded) and e.outcome in ("failed", "cancelled"))
    return event


def visible(output: Path) -> dict[str, str]:
    """The SHA-256 of each file of the export by name; log and receipt hold times."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.iterdir())
        if path.is_file() and path.name not in ("mlc-wizard.log", "export-receipt.json")
    }


def is_ready(event: Event) -> bool:
    return isinstance(event, Output) and "ready" in event.lines


def forked(work: Callable[[], object]) -> int:
    """Run `work` in a forked copy of this process; 0, 1 for an exception, or -9."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
