"""A run for tests of the screens: events of one, a clock that stands, and the screens they are fed to."""

from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from tui_support import screen_text, until, wizard_at

from engine.events import (
    Advised,
    Check,
    Event,
    Output,
    Progress,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
)
from engine.plan import BUILTIN_DEMO, ExportPlan
from tui.app import WizardApp
from tui.draft import Draft
from tui.messages import EngineEvent
from tui.screens.run import NOTE, RunRecord, RunScreen
from tui.widgets.log_view import LogView

MIB = 2**20
Begun = list[dict[str, Any]]
PLAN = ExportPlan(
    source=BUILTIN_DEMO, quantization="q4f32_1", context_window_size=1024, compile=False, output=Path("out")
)
STARTED = RunStarted(
    output="/exports/demo",
    log="/exports/demo/mlc-wizard.log",
    backend="embedded backend: it covers this model, q4f32_1 and webgpu.",
    stages=("fetch", "convert_weight", "gen_config", "compile", "verify"),
)
CONVERT = StageStarted(stage="convert_weight", command=("python", "-m", "engine.embedded", "convert_weight"))
FETCHED = StageEnded(
    stage="fetch", outcome="skipped", seconds=0.01, detail="fetched before, revision 3b4f2c1"
)
CONVERTED = StageEnded(stage="convert_weight", outcome="done", seconds=84.2, exit_code=0)
CONFIGURED = StageEnded(stage="gen_config", outcome="done", seconds=0.6, exit_code=0)
COMPILE = StageStarted(stage="compile", command=("python", "-m", "engine.embedded", "compile"))
FAILED = StageEnded(
    stage="compile",
    outcome="failed",
    seconds=12.3,
    exit_code=1,
    what="compile ran out of disk while it linked model-webgpu.wasm.",
    why="The disk that holds /exports/demo has 3 MiB left; the library needs about 5.",
    remedy="Free some space, or choose a folder on another disk; finished stages are kept.",
    fix="output",
)
OVER_FAILED = RunEnded(outcome="failed", exit_code=1, seconds=97.5, output="/exports/demo")
OVER_CANCELLED = RunEnded(outcome="cancelled", exit_code=130, seconds=20.0, output="/exports/demo")
STOPPED = StageEnded(
    stage="convert_weight", outcome="cancelled", seconds=20.0, what="Stopped in convert_weight."
)
OVER = RunEnded(
    outcome="done",
    exit_code=0,
    seconds=221.4,
    output="/exports/demo",
    files=(
        ("mlc-chat-config.json", 3050),
        ("model-webgpu.wasm", 5 * MIB),
        *((f"params_shard_{n}.bin", 30 * MIB) for n in range(10)),
        ("tensor-cache.json", 43000),
        ("tokenizer.json", 9 * MIB),
        ("export-receipt.json", 4700),
    ),
    checks=(
        Check(name="configuration", passed=True, found="gemma3_text, q4f32_1"),
        Check(name="shard files", passed=True, found="314572800 bytes"),
        Check(name="library", passed=True, found="model-webgpu.wasm, 5242880 bytes"),
    ),
)


def progress(done: int, total: int | None, unit: str = "bytes", detail: str = "") -> Progress:
    return Progress(stage="convert_weight", done=done, total=total, unit=unit, detail=detail)


CONVERTING: tuple[tuple[float, Event], ...] = (
    (0.0, STARTED),
    (0.1, Advised(code="small-4bit", severity="warning", message="Below 1 B parameters 4 bits cost much.")),
    (0.2, FETCHED),
    (0.3, CONVERT),
    (0.5, progress(0, 300 * MIB)),
    (0.6, Output(stage="convert_weight", lines=("Found tokenizer.json", "warning: a tie was broken"))),
    (2.5, progress(123 * MIB, 300 * MIB, detail="tensor 41/111 model.layers.3.mlp.down_proj")),
)
AT_LINK: tuple[tuple[float, Event], ...] = (
    *CONVERTING,
    (84.5, CONVERTED),
    (85.1, CONFIGURED),
    (85.2, COMPILE),
)
FAILING = (*AT_LINK, (97.4, FAILED), (97.5, OVER_FAILED))


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fed_app() -> WizardApp:
    draft = Draft.from_plan(PLAN)
    draft.done.add("review")
    return wizard_at("run", draft)


async def feed(pilot: Pilot[Any], clock: Clock, *timed: tuple[float, Event]) -> None:
    """The run says each event at its time, in seconds after the start."""
    screen = run_screen(pilot)
    for at, event in timed:
        clock.now = 1000.0 + at
        screen.post_message(EngineEvent(event))
        await pilot.pause()
    if screen.is_mounted and screen.query(LogView):
        await taken_in(pilot, screen.query_one(LogView))


async def taken_in(pilot: Pilot[Any], view: LogView) -> None:
    """Wait until every line was taken in and searched."""
    await until(pilot, lambda: view.settled, "the lines of the log", settle=False)


def run_screen(pilot: Pilot[Any]) -> RunScreen:
    (screen,) = (screen for screen in pilot.app.screen_stack if isinstance(screen, RunScreen))
    return screen


def visible(pilot: Pilot[Any]) -> str:
    return screen_text(pilot.app)


def numbered(count: int, start: int = 0) -> tuple[str, ...]:
    return tuple(f"line {number}" for number in range(start, start + count))


def output(*lines: str) -> tuple[float, Event]:
    return 3.0, Output(stage="convert_weight", lines=lines)


def done_app() -> WizardApp:
    """The result of a run that was."""
    draft = Draft.from_plan(PLAN)
    draft.done |= {"review", "run"}
    record = RunRecord()
    record.state.begin(draft.plan(), 0.0)
    record.state.feed(OVER, 221.4)
    draft.notes[NOTE] = record
    return wizard_at("result", draft)
