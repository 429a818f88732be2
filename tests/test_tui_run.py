"""The step Run, fed events: stages, failures, stop and retry."""

from typing import Any

import pytest
from textual.pilot import Pilot
from tui_runs import (
    AT_LINK,
    CONVERT,
    CONVERTING,
    FAILED,
    FAILING,
    OVER,
    OVER_CANCELLED,
    PLAN,
    STOPPED,
    Begun,
    Clock,
    fed_app,
    feed,
    numbered,
    output,
    progress,
    taken_in,
    visible,
)
from tui_support import at_every_size, colours, snap, until, words

from engine.errors import UsageError
from engine.events import Event, Progress
from tui.messages import RunRefused
from tui.run_state import Rate, RunState, Stage
from tui.screens.confirm import ConfirmModal
from tui.screens.help import HelpScreen
from tui.screens.result import ResultScreen
from tui.screens.review import ReviewScreen
from tui.screens.run import RunScreen
from tui.screens.target import TargetScreen
from tui.widgets.log_view import LogView

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
        for told in ("41 %", "129 MB of 315 MB", "64 MB/s", "00:02 left", "tensor 41/111"):
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


async def test_a_stage_of_hours_stays_on_its_line(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(
            pilot, clock, *AT_LINK, (36085.2, Progress(stage="compile", done=1, total=4, unit="steps"))
        )
        row = next(line for line in visible(pilot).splitlines() if "compile library" in line)
        assert "1/4 steps" in row
        assert "10:00:00 │" in row


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
        for told in (FAILED.what, FAILED.why, FAILED.remedy, "Compile library failed", "Retry from here"):
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


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (CONVERTING, ("✓ fetch model", "● convert weights", "41 %", "○ compile library", "waiting")),
        (FAILING, ("✗ Compile library failed", "✗ compile library", "✓ convert weights", "r Retry")),
        ((*CONVERTING, (20.0, STOPPED), (20.0, OVER_CANCELLED)), ("▲ Stopped", "○ compile library")),
    ],
)
async def test_no_state_is_told_by_colour_alone(
    begun: Begun,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    events: tuple[tuple[float, Event], ...],
    told: tuple[str, ...],
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = fed_app()
    async with app.run_test(size=(80, 40)) as pilot:
        await feed(pilot, clock, *events)
        for text in told:
            assert text in words(app)
        assert not colours(app)


async def test_the_remedy_leads_to_where_it_is_followed(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 32)) as pilot:
        await feed(pilot, clock, *FAILING)
        assert "e Other folder" in words(app)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, ReviewScreen), "the review")
        assert app.focused is app.screen.query_one("#folder")
        app.go("run")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "the run", settle=False)
        app.screen.post_message(RunRefused(UsageError("No compiler.", remedy="Do without.", fix="compile")))
        await until(pilot, lambda: "e Weights only" in words(app), "the remedy")
        assert "Do without." in words(app)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, TargetScreen), "the targets")


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
