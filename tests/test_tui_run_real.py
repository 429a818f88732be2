"""The step Run with the real engine and real children."""

import dataclasses
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runner_stand_ins import Printing
from textual.pilot import Pilot
from tui_runs import PLAN, run_screen, visible
from tui_support import PATIENCE, settled, until, wizard_at, words

from engine import preset, runner
from engine.events import Event, RunEnded
from engine.plan import ExportPlan
from tui.draft import Draft
from tui.screens.result import ResultScreen
from tui.widgets.log_view import LogView


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
        await until(pilot, lambda: not state.active, "the end of the run", settle=False)
        assert not child.is_running()
        assert "Stopped in convert weights" in visible(pilot)
        await pilot.press("r")
        assert state.active


async def test_an_app_that_closes_takes_the_run_with_it(hanging: None) -> None:
    app = wizard_at("run", Draft.from_plan(PLAN))
    async with app.run_test(size=(80, 24)) as pilot:
        child = await child_of(pilot)
        app.exit()
    assert not psutil.wait_procs([child], timeout=PATIENCE)[1]


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


async def test_an_export_is_verified_again_and_mended(wizard_home: Path) -> None:
    app = wizard_at("run", Draft.from_plan(PLAN))
    shard = wizard_home / "out" / "params_shard_0.bin"
    async with app.run_test(size=(120, 50)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ResultScreen), "the result", settle=False)
        assert "verified again" not in words(app)
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        await pilot.press("v")
        await until(pilot, lambda: "verified again" in words(app), "the checks")
        assert "✗ shard contents: " in words(app)
        assert "Run again, key r" in words(app)
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, ResultScreen), "the result", settle=False)
        assert shard.read_bytes() == whole
        await pilot.press("v")
        await until(pilot, lambda: "checks passed, verified again" in words(app), "the checks")
        assert "✗" not in words(app)


async def test_an_export_that_is_gone_says_so(wizard_home: Path) -> None:
    app = wizard_at("run", Draft.from_plan(PLAN))
    async with app.run_test(size=(120, 50)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ResultScreen), "the result", settle=False)
        shutil.rmtree(wizard_home / "out")
        await pilot.press("v")
        await until(pilot, lambda: "came to no end" in words(app), "the reason")
        assert "→" in words(app)
