"""Run, Result, the question and the save dialog: fed events for states, the real engine for the rest."""

import asyncio
import dataclasses
import datetime
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runner_stand_ins import Printing
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static
from tui_support import at_every_size, screen_text, settled, snap, until, wizard_at

from engine import preset, runner
from engine.errors import UsageError
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
from engine.run import receipt
from tui.app import WizardApp
from tui.draft import Draft
from tui.messages import EngineEvent, RunRefused
from tui.run_state import Rate, RunState, Stage
from tui.screens.confirm import ConfirmModal
from tui.screens.help import HelpScreen
from tui.screens.result import ResultScreen
from tui.screens.review import ReviewScreen
from tui.screens.run import NOTE, RunRecord, RunScreen
from tui.screens.save import SaveModal, replayable, suggested_name
from tui.widgets.log_view import LogStore, LogView

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
    remedy="Free some space, or choose another folder for the export; finished stages are kept.",
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    standing = Clock()
    noon = datetime.datetime(2026, 11, 22, 5, 0, 27)
    monkeypatch.setattr(RunScreen, "clock", standing)
    monkeypatch.setattr(RunScreen, "wall_clock", staticmethod(lambda: noon))
    return standing


@pytest.fixture
def begun(wizard_home: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Begun:
    """Runs are noted here instead of begun; the test says what they say."""
    runs: Begun = []

    def note(_self: RunScreen, plan: ExportPlan, cancel: threading.Event, *, fresh: bool) -> None:
        runs.append({"plan": plan, "cancel": cancel, "fresh": fresh})

    monkeypatch.setattr(RunScreen, "_run", note)
    return runs


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
    while not view.settled:
        await pilot.pause(0.01)
    await pilot.pause()


def run_screen(pilot: Pilot[Any]) -> RunScreen:
    (screen,) = (screen for screen in pilot.app.screen_stack if isinstance(screen, RunScreen))
    return screen


def visible(pilot: Pilot[Any]) -> str:
    return screen_text(pilot.app)


# --- state ---------------------------------------------------------------------------------------


def test_throughput_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.per_second is None
    for second in range(20):
        rate.add(second, 100 * min(second, 10) + 20 * max(second - 10, 0))
    assert rate.per_second == pytest.approx(20)


def test_throughput_says_nothing_after_a_moment_and_begins_anew_with_the_counter() -> None:
    rate = Rate()
    rate.add(0.0, 0)
    rate.add(0.1, 10**9)
    assert rate.per_second is None
    rate.add(2.0, 10**9)
    rate.add(2.1, 5)
    assert rate.per_second is None


def test_a_stage_with_another_unit_measures_anew_and_several_commands_are_one_stage() -> None:
    stage = Stage(name="convert_weight")
    stage.feed(CONVERT, 10.0)
    stage.feed(progress(0, 4, "steps"), 10.0)
    stage.feed(progress(2, 4, "steps"), 12.0)
    assert stage.rate.per_second == pytest.approx(1)
    assert stage.remaining() is None
    stage.feed(progress(0, 100), 13.0)
    assert stage.rate.per_second is None
    stage.feed(progress(25, 100), 14.0)
    assert stage.remaining() == pytest.approx(3)
    stage.feed(CONVERT, 15.0)
    assert stage.elapsed(16.0) == pytest.approx(6)


@pytest.mark.parametrize(
    ("events", "phase", "states", "told"),
    [
        ((), "running", [], None),
        (CONVERTING, "running", ["skipped", "running", "waiting", "waiting", "waiting"], None),
        (FAILING, "failed", ["skipped", "done", "done", "failed", "waiting"], FAILED.what),
        (
            (*CONVERTING, (20.0, STOPPED), (20.0, OVER_CANCELLED)),
            "cancelled",
            ["skipped", "cancelled", "waiting", "waiting", "waiting"],
            STOPPED.what,
        ),
    ],
)
def test_a_run_is_what_its_events_say(
    events: tuple[tuple[float, Event], ...], phase: str, states: list[str], told: str | None
) -> None:
    state = RunState()
    state.begin(PLAN, 0.0)
    for at, event in events:
        state.feed(event, at)
    assert state.phase == phase
    assert [stage.state for stage in state.stages.values()] == states
    assert (state.failure.what if state.failure else None) == told


# --- stages --------------------------------------------------------------------------------------


async def test_progress_is_true_and_measured(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        text = visible(pilot)
        assert len(begun) == 1
        for told in ("41 %", "123.0 MiB of 300.0 MiB", "61.5 MiB/s", "00:02 left", "tensor 41/111"):
            assert told in text
        assert text.count("waiting") == 3
        assert "kept" in text


async def test_work_without_a_known_end_has_no_percentage(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *AT_LINK)
        assert "working" in visible(pilot)
        await feed(pilot, clock, (90.0, Progress(stage="compile", done=7, total=None, unit="kernels")))
        assert "7 kernels" in visible(pilot)
        assert "%" not in visible(pilot)
        await feed(
            pilot, clock, (91.0, Progress(stage="compile", done=2, total=5, unit="steps", detail="linking"))
        )
        assert "2/5 steps" in visible(pilot)
        assert "linking" in visible(pilot)


@pytest.mark.parametrize("size", [(40, 12), (60, 18), (81, 24), (200, 50)])
async def test_every_size_of_terminal(begun: Begun, clock: Clock, size: tuple[int, int]) -> None:
    app = fed_app()
    async with app.run_test(size=size) as pilot:
        await feed(pilot, clock, *CONVERTING)
        assert "Found" in visible(pilot)
        await feed(pilot, clock, *FAILING[len(CONVERTING) :])
        assert "compile ran out" in visible(pilot)
        await pilot.resize_terminal(100, 30)
        await pilot.pause()
        assert "compile ran out" in visible(pilot)


# --- failure, stop, retry ------------------------------------------------------------------------


async def test_a_failure_is_explained_and_can_be_retried(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 32)) as pilot:
        await pilot.press("r")
        assert len(begun) == 1
        await feed(pilot, clock, *FAILING)
        text = " ".join(visible(pilot).replace("│", " ").split())
        for told in (FAILED.what, FAILED.why, FAILED.remedy, "Compile library failed", "Retry from compile"):
            assert told in text
        await pilot.press("r")
        assert [run["fresh"] for run in begun] == [False, False]
        assert "ran out of disk while it linked model-webgpu.wasm. The" not in visible(pilot)
        await feed(pilot, clock, *FAILING)
        await pilot.click("#fresh")
        await pilot.pause()
        assert [run["fresh"] for run in begun] == [False, False, True]
        await feed(pilot, clock, *FAILING)
        await pilot.press("e")
        await pilot.pause()
        assert isinstance(app.screen, ReviewScreen)


async def test_a_plan_that_cannot_be_run_says_why(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        error = UsageError("The output is the model's folder.", why="W" * 5, remedy="Choose another.")
        app.screen.post_message(RunRefused(error))
        await pilot.pause()
        for told in ("The output is the model's folder.", "WWWWW", "Choose another.", "The run failed"):
            assert told in visible(pilot)
        await pilot.press("ctrl+n")
        assert isinstance(app.screen, RunScreen)


async def test_stop_asks_and_no_is_the_default(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        for refusal in ("enter", "n", "escape"):
            await pilot.press("x")
            assert isinstance(app.screen, ConfirmModal)
            await pilot.press(refusal)
            assert isinstance(app.screen, RunScreen)
        await pilot.press("x")
        await pilot.click(offset=(1, 1))
        assert not begun[0]["cancel"].is_set()
        await pilot.press("x", "left", "enter")
        assert begun[0]["cancel"].is_set()
        assert "stopping" in visible(pilot)
        await feed(pilot, clock, (20.0, STOPPED), (20.0, OVER_CANCELLED))
        assert "Stopped in convert weights" in visible(pilot)
        await pilot.press("r")
        assert len(begun) == 2
        assert not begun[1]["cancel"].is_set()


@pytest.mark.parametrize("key", ["escape", "ctrl+q", "1"])
async def test_leaving_a_run_asks_and_waits_for_its_end(begun: Begun, clock: Clock, key: str) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        await pilot.press(key)
        assert isinstance(app.screen, ConfirmModal)
        await pilot.press("n")
        assert isinstance(app.screen, RunScreen)
        await pilot.press(key, "y")
        assert begun[0]["cancel"].is_set()
        assert isinstance(app.screen, RunScreen)
        await feed(pilot, clock, (20.0, STOPPED), (20.0, OVER_CANCELLED))
        if key == "ctrl+q":
            assert app.return_code == 0
        else:
            assert {"escape": "review", "1": "model"}[key] == app.screen.STEP  # type: ignore[attr-defined]


async def test_a_run_that_ends_takes_its_question_with_it(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        await pilot.press("x")
        await feed(pilot, clock, *FAILING[len(CONVERTING) :])
        assert isinstance(app.screen, RunScreen)
        assert "Compile library failed" in visible(pilot)


async def test_a_finished_run_shows_its_result_and_stays_there_to_see(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *AT_LINK, (221.4, OVER))
        await pilot.pause()
        assert isinstance(app.screen, ResultScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, RunScreen)
        await taken_in(pilot, app.screen.query_one(LogView))
        assert "Found tokenizer.json" in visible(pilot)
        assert len(begun) == 1
        await pilot.press("ctrl+n")
        assert isinstance(app.screen, ResultScreen)
        app.draft.choose(quantization="q0f32")
        app.go("run")
        await pilot.pause()
        assert len(begun) == 2


async def test_a_run_that_succeeds_waits_for_who_reads(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await feed(pilot, clock, (221.4, OVER))
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, ResultScreen)
        assert not [screen for screen in app.screen_stack if isinstance(screen, RunScreen)]


async def test_a_run_that_succeeds_answers_the_question_itself(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        await pilot.press("x")
        await feed(pilot, clock, (221.4, OVER))
        await pilot.pause()
        assert isinstance(app.screen, ResultScreen)


async def test_quitting_from_help_asks_too(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        await pilot.press("question_mark", "ctrl+q")
        assert isinstance(app.screen, ConfirmModal)
        assert app.return_code is None


# --- log -----------------------------------------------------------------------------------------


def numbered(count: int, start: int = 0) -> tuple[str, ...]:
    return tuple(f"line {number}" for number in range(start, start + count))


def output(*lines: str) -> tuple[float, Event]:
    return 3.0, Output(stage="convert_weight", lines=lines)


async def test_scrolling_up_lets_go_and_end_follows(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.screen.query_one(LogView)
        await feed(pilot, clock, *CONVERTING, output(*numbered(100)))
        assert "line 99" in visible(pilot)
        await pilot.press("up")
        assert not view.following
        await feed(pilot, clock, output(*numbered(100, 100)))
        assert "line 199" not in visible(pilot)
        assert "100 new lines" in visible(pilot)
        await pilot.press("end")
        await pilot.pause()
        assert view.following
        assert "line 199" in visible(pilot)
        await pilot.press("f")
        await feed(pilot, clock, output(*numbered(50, 200)))
        assert "line 249" not in visible(pilot)
        await pilot.press("f")
        await pilot.pause()
        assert "line 249" in visible(pilot)
        await pilot.resize_terminal(90, 40)
        await pilot.pause()
        await pilot.pause()
        assert view.following
        assert "line 249" in visible(pilot)


async def test_find_goes_from_match_to_match_and_sees_new_lines(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.screen.query_one(LogView)
        await feed(
            pilot, clock, *CONVERTING, output(*numbered(300), "Needle one", *numbered(300), "needle two")
        )
        await pilot.press("slash", *"needle")
        await taken_in(pilot, view)
        assert "2 of 2" in visible(pilot)
        await pilot.press("enter")
        assert "1 of 2" in visible(pilot)
        found = []
        for key in ("enter", "down", "up", "enter"):
            assert view.current is not None
            found.append(view.lines[view.current - view.first].split()[-1])
            await pilot.press(key)
        assert len(set(found)) == 2
        assert not view.following
        await feed(pilot, clock, output("a third needle"))
        assert "of 3" in visible(pilot)
        await pilot.press("ctrl+u", *"Needle")
        await taken_in(pilot, view)
        assert "1 of 1" in visible(pilot)
        await pilot.press("ctrl+u", *"haystack")
        await taken_in(pilot, view)
        assert "none" in visible(pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, RunScreen)
        assert not view.finding


async def test_n_goes_on_finding_after_the_field_is_left(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.screen.query_one(LogView)
        await feed(pilot, clock, *CONVERTING, output(*numbered(40)))
        await pilot.press("slash", *"line 1")
        await taken_in(pilot, view)
        await pilot.press("tab")
        view.focus()
        await pilot.pause()
        before = view.current
        await pilot.press("n")
        assert view.current == before + 1 if before is not None else False
        await pilot.press("N", "N")
        assert view.current != before


async def test_log_only_and_copy(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING, output(*numbered(300)))
        await pilot.press("l")
        assert "Stages" not in visible(pilot)
        await pilot.press("l")
        assert "Stages" in visible(pilot)
        await feed(pilot, clock, *FAILING[len(CONVERTING) :])
        await pilot.press("c")
        assert app.clipboard.startswith(FAILED.what)
        assert "line 299" in app.clipboard
        assert "line 20\n" not in app.clipboard
        await pilot.press("y")
        assert app.clipboard == STARTED.log


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("error: no such file", "error"),
        ("[05:00:27] ERROR compile.py:12: out of memory", "error"),
        ("RuntimeError: boom", "error"),
        ("largest quantization error 0.1, nothing failed", "output"),
        ("/x.py:3: DeprecationWarning: old", "warning"),
        ("Warning: a tie", "warning"),
        ("be warned", "output"),
    ],
)
def test_what_programs_mark_is_marked(line: str, kind: str) -> None:
    assert LogView._severity(line) == kind


async def test_text_from_a_child_is_text(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(110, 32)) as pilot:
        odd = ("[red]not markup[/red]", "a\ttab", "日本語の行", "x" * 5000, "")
        await feed(pilot, clock, *CONVERTING, output(*odd))
        text = visible(pilot)
        assert "[red]not markup[/red]" in text
        assert "日本語の行" in text
        await pilot.press("right", "right")
        await pilot.pause()
        assert app.screen.query_one(LogView).scroll_x > 0
        (long,) = (line for line in app.screen.query_one(LogView).lines if "xxx" in line)
        assert long.endswith("3000 more characters in the log file")


async def test_a_storm_loses_nothing_keeps_the_order_and_leaves_the_keys_working(
    begun: Begun, clock: Clock
) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        view = app.screen.query_one(LogView)
        before = len(view.lines)
        for start in range(0, 100_000, 5_000):
            app.screen.post_message(EngineEvent(output(*numbered(5_000, start))[1]))
        await pilot.press("l")
        assert app.screen.has_class("-log-only")
        await taken_in(pilot, view)
        assert [line.split("  ", 1)[1] for line in view.lines[before:]] == list(numbered(100_000))
        assert "line 99999" in visible(pilot)


async def test_the_oldest_lines_go_first_and_what_is_in_sight_stays(clock: Clock) -> None:
    app = WizardApp(Draft())
    async with app.run_test(size=(80, 24)) as pilot:
        view = LogView(LogStore(), max_lines=1000)
        await app.screen.mount(view)
        view.write(numbered(900))
        await taken_in(pilot, view)
        view.find("line 77")
        await taken_in(pilot, view)
        assert view.matches == [77, *range(770, 780)]
        view.following = False
        view.scroll_to(y=500, animate=False, immediate=True)
        top = view.lines[int(view.scroll_y)]
        view.write(numbered(200, 900))
        await taken_in(pilot, view)
        assert view.lines == list(numbered(1000, 100))
        assert view.first == 100
        assert view.matches[0] == 770
        assert view.lines[int(view.scroll_y)] == top


# --- the real engine -----------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    apart = ("mlc-wizard.log", "export-receipt.json")
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name not in apart}


async def test_a_real_export_saved_as_a_preset_is_replayed_to_the_same_bytes(wizard_home: Path) -> None:
    draft = Draft.from_plan(dataclasses.replace(PLAN, context_window_size=None))
    app = wizard_at("run", draft)
    async with app.run_test(size=(200, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ResultScreen), "the result", settle=False)
        text = visible(pilot)
        assert "Exported in" in text
        assert "params_shard_0.bin" in text
        assert f"mlc-wizard verify {wizard_home / 'out'}" in text
        await pilot.press("c")
        assert app.clipboard == str(wizard_home / "out")
        await pilot.press("enter")
        assert app.clipboard == f"mlc-wizard verify {wizard_home / 'out'}"
        await pilot.press("ctrl+s", "ctrl+u", *"again", "enter")
        await pilot.pause()
        assert isinstance(app.screen, ResultScreen)
        assert "mlc-wizard --preset again" in visible(pilot)
        await pilot.press("n")
        await pilot.pause()
        assert app.screen.STEP == "model"  # type: ignore[attr-defined]
    plan = preset.load("again")
    assert plan.context_window_size is not None
    replayed = dataclasses.replace(plan, output=wizard_home / "other")
    *_, ended = runner.run(replayed, threading.Event())
    assert isinstance(ended, RunEnded)
    assert ended.outcome == "done"
    assert contents(wizard_home / "other") == contents(wizard_home / "out")


@pytest.fixture
def hanging(wizard_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real run whose first stage says who it is and never ends by itself."""
    real = runner.run
    backend = Printing("import os, time; print('pid', os.getpid()); time.sleep(600)")

    def run(plan: ExportPlan, cancel: threading.Event, *, fresh: bool) -> Iterator[Event]:
        return real(plan, cancel, fresh=fresh, backend=backend)

    monkeypatch.setattr(runner, "run", run)
    yield
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not [command for command in left if "time.sleep(600)" in " ".join(command)]


async def child_of(pilot: Pilot[Any]) -> psutil.Process:
    view = pilot.app.screen.query_one(LogView)
    await until(pilot, lambda: any("  pid " in line for line in view.lines), "the child", settle=False)
    return psutil.Process(int([line for line in view.lines if "  pid " in line][-1].split()[-1]))


async def test_stop_ends_the_child_and_retry_begins_anew(hanging: None) -> None:
    app = wizard_at("run", Draft.from_plan(PLAN))
    async with app.run_test(size=(80, 24)) as pilot:
        child = await child_of(pilot)
        await pilot.press("x", "y")
        state = run_screen(pilot).state
        while state.active:
            await pilot.pause(0.05)
        await pilot.pause()
        assert not child.is_running()
        assert "Stopped in convert weights" in visible(pilot)
        await pilot.press("r")
        assert state.active


async def test_an_app_that_closes_takes_the_run_with_it(hanging: None) -> None:
    app = wizard_at("run", Draft.from_plan(PLAN))
    async with app.run_test(size=(80, 24)) as pilot:
        child = await child_of(pilot)
        app.exit()
    while child.is_running():
        await asyncio.sleep(0.05)


async def test_a_refusal_and_a_fault_are_told(wizard_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = wizard_at("run", Draft.from_plan(dataclasses.replace(PLAN, source=str(wizard_home / "nowhere"))))
    async with app.run_test(size=(200, 40)) as pilot:
        await settled(pilot)
        assert "The run failed" in visible(pilot)
        assert "nowhere" in visible(pilot)

        def broken(*_args: object, **_kwargs: object) -> Iterator[Event]:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(runner, "run", broken)
        await pilot.press("r")
        await settled(pilot)
        assert "RuntimeError: out of luck" in visible(pilot)


# --- save ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "a/b", "a\\b", "-a", "a.", "con", "NUL.x", "COM1", "é", "a" * 65, "a\0b", "a b"],
)
def test_names_that_no_preset_can_have(wizard_home: Path, name: str) -> None:
    with pytest.raises(UsageError):
        preset.place_of(name)


@pytest.mark.parametrize("name", ["a", "gemma-3_270m.web", "0", "console", "a" * 64])
def test_names_that_presets_have(wizard_home: Path, name: str) -> None:
    path = preset.place_of(name)
    preset.save(PLAN, path)
    assert preset.find(name) == path
    assert preset.place_of(f"{name}.toml") == path


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (BUILTIN_DEMO, "demo-q4f32_1-webgpu"),
        ("Google/Gemma-3 270m", "gemma-3-270m-q4f32_1-webgpu"),
        ("/models/" + "m" * 80 + "/", "m" * 49 + "-q4f32_1-webgpu"),
        ("/модель", "q4f32_1-webgpu"),
    ],
)
def test_a_name_is_suggested_that_a_preset_can_have(wizard_home: Path, source: str, name: str) -> None:
    suggested = suggested_name(dataclasses.replace(PLAN, source=source))
    assert suggested == name
    assert preset.place_of(suggested)


def test_a_saved_plan_means_the_same_from_anywhere(wizard_home: Path) -> None:
    (wizard_home / "model").mkdir()
    plan = replayable(dataclasses.replace(PLAN, source="./model"), None)
    assert plan.source == str(wizard_home / "model")


def done_app() -> WizardApp:
    """The result of a run that was."""
    draft = Draft.from_plan(PLAN)
    draft.done |= {"review", "run"}
    record = RunRecord()
    record.state.begin(draft.plan(), 0.0)
    record.state.feed(OVER, 221.4)
    draft.notes[NOTE] = record
    return wizard_at("result", draft)


@pytest.fixture
def receipt_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipt, "plan_of", lambda _output: dataclasses.replace(PLAN, prefill_chunk_size=256))


def told(pilot: Pilot[Any]) -> str:
    return str(pilot.app.screen.query_one("#told", Static).content)


async def test_saving_checks_the_name_and_asks_before_it_replaces(
    wizard_home: Path, receipt_of: None
) -> None:
    app = done_app()
    path = preset.place_of("mine")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+s")
        assert app.screen.query_one("#name", Input).value == "demo-q4f32_1-webgpu"
        await pilot.press("ctrl+u", *"a/b", "enter")
        assert isinstance(app.screen, SaveModal)
        assert "'a/b' is no name" in told(pilot)
        await pilot.press("ctrl+u", *"demo")
        assert "comes with mlc-wizard" in told(pilot)
        await pilot.press("ctrl+u", *"mine", "tab", "ctrl+u", *"for the web", "enter")
        assert isinstance(app.screen, ResultScreen)
        assert preset.load("mine").description == "for the web"
        before = path.read_text()
        await pilot.press("ctrl+s", "ctrl+u", *"mine")
        assert "there already" in told(pilot)
        await pilot.press("tab", "ctrl+u", *"another", "enter")
        assert isinstance(app.screen, ConfirmModal)
        await pilot.press("enter")
        assert isinstance(app.screen, SaveModal)
        assert path.read_text() == before
        await pilot.press("enter", "y")
        assert isinstance(app.screen, ResultScreen)
        assert preset.load("mine").description == "another"


async def test_a_preset_that_cannot_be_written_says_why(
    wizard_home: Path, receipt_of: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = wizard_home / "file"
    in_the_way.touch()
    monkeypatch.setattr(preset, "user_folder", lambda: in_the_way)
    app = done_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+s", "enter")
        assert isinstance(app.screen, SaveModal)
        assert "cannot be saved" in told(pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, ResultScreen)


async def test_a_receipt_that_is_gone_is_told(wizard_home: Path) -> None:
    app = done_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert isinstance(app.screen, ResultScreen)
        assert "export-receipt.json" in visible(pilot)


def test_the_plan_of_a_receipt_must_be_one(tmp_path: Path) -> None:
    for text in ("{}", "[]", "no json", '{"preset": "version = 1"}', '{"preset": "= ="}'):
        (tmp_path / "export-receipt.json").write_text(text)
        with pytest.raises(UsageError):
            receipt.plan_of(tmp_path)


# --- result --------------------------------------------------------------------------------------


async def test_the_result_lists_files_checks_and_commands(wizard_home: Path) -> None:
    app = done_app()
    async with app.run_test(size=(80, 40)) as pilot:
        text = visible(pilot)
        for part in ("Exported in 3:41", "params_shard_0.bin … params_shard_9.bin", "300.0 MiB", "5.0 MiB"):
            assert part in text
        assert "3 of 3 checks passed" in text
        assert "gemma3_text, q4f32_1" in text
        assert "model_list" in text


async def test_a_result_that_does_not_fit_is_scrolled_with_the_keys(wizard_home: Path) -> None:
    app = done_app()
    async with app.run_test(size=(40, 14)) as pilot:
        assert "5242880" not in visible(pilot)
        await pilot.press("pagedown", "pagedown", "pagedown")
        await pilot.pause(0.5)
        assert "library" in visible(pilot)
        assert isinstance(app.focused, OptionList)


# --- looks ---------------------------------------------------------------------------------------


@at_every_size
@pytest.mark.parametrize("state", ["running", "failed", "stopping", "find", "log-only"])
def test_run_looks(begun: Begun, clock: Clock, snap_compare: Any, size: tuple[int, int], state: str) -> None:
    async def prepare(pilot: Pilot[Any]) -> None:
        await feed(pilot, clock, *(FAILING if state == "failed" else CONVERTING))
        if state == "stopping":
            await pilot.press("x")
        elif state == "find":
            await pilot.press("slash", *"tok")
            await taken_in(pilot, pilot.app.screen.query_one(LogView))
        elif state == "log-only":
            await feed(pilot, clock, output(*numbered(100)))
            await pilot.press("l", "up")

    assert snap(snap_compare, fed_app(), size, prepare)


@at_every_size
@pytest.mark.parametrize("state", ["result", "save", "taken"])
def test_result_looks(
    wizard_home: Path,
    receipt_of: None,
    monkeypatch: pytest.MonkeyPatch,
    snap_compare: Any,
    size: tuple[int, int],
    state: str,
) -> None:
    monkeypatch.setattr(preset, "user_folder", lambda: Path("presets"))

    async def prepare(pilot: Pilot[Any]) -> None:
        if state != "result":
            await pilot.press("ctrl+s")
        if state == "taken":
            await pilot.press("ctrl+u", *"demo/web")

    assert snap(snap_compare, done_app(), size, prepare)
