"""Remedies of the screen Toolchain: asked for, really run, stopped."""

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input
from tui_support import at_every_size, snap, told, until, wizard_at, words
from tui_toolchain_support import Asked, a_machine, asked, feed, finding, highlight, opened, showing

from engine.toolchain.finding import Finding, running
from engine.toolchain.registry import BY_ID
from tui.messages import CheckEnded
from tui.screens.confirm import ConfirmModal
from tui.screens.remedy import RemedyScreen
from tui.screens.toolchain import ToolchainScreen

__all__ = ["asked"]


def curing(*codes: str, environment: str = "") -> Finding:
    """A finding whose remedy runs Python programs."""
    runs = [(sys.executable, "-P", "-c", code) for code in codes]
    return finding(
        "zig", "missing", "not installed", remedy=running("Run it.", *runs, environment=environment)
    )


async def ask(pilot: Pilot[Any], cured: Finding) -> RemedyScreen:
    """The screen of its remedy."""
    await opened(pilot)
    await feed(pilot, *a_machine(), cured)
    pilot.app.screen.post_message(CheckEnded(tuple(BY_ID)))
    await highlight(pilot, cured.id)
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, RemedyScreen), "the question", settle=False)
    screen = pilot.app.screen
    assert isinstance(screen, RemedyScreen)
    return screen


async def test_no_is_what_enter_means(asked: Asked, tmp_path: Path) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        screen = await ask(pilot, curing(f"open({str(tmp_path / 'ran')!r}, 'w')"))
        assert "ran" in words(app), "the command is shown"
        assert screen.query_one("#no", Button).has_focus
        await pilot.press("enter")
        assert isinstance(app.screen, ToolchainScreen)
        assert not (tmp_path / "ran").exists()
        assert len(asked) == 1, "nothing was run, nothing is looked at again"


async def test_a_remedy_runs_and_what_it_changed_is_looked_at_again(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        screen = await ask(pilot, curing("print('first line')", "print('second program')"))
        await pilot.press("y")
        await until(pilot, lambda: screen.phase == "done", "the end")
        await until(pilot, lambda: "second program" in words(app), "its output")
        assert "first line" in words(app)
        assert told(app, "#told").startswith("✓ Done.")
        await pilot.press("escape")
        assert isinstance(app.screen, ToolchainScreen)
        assert {"tvm", "zig", "emcc"} <= set(asked[1])
        assert "memory" not in asked[1]


async def test_a_remedy_that_fails_is_told_and_the_rest_is_not_run(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        line = "ERROR: No matching distribution found for mlc-ai-nightly"
        screen = await ask(pilot, curing(f"print({line!r}); raise SystemExit(1)", "print('not' + ' this')"))
        await pilot.press("y")
        await until(pilot, lambda: screen.phase == "failed", "the failure")
        text = told(app, "#told")
        assert "ended with exit code 1" in text
        assert "pip finds no wheel of MLC" in text, "a known failure is explained"
        assert "not this" not in words(app)
        await pilot.press("c")
        assert line in app.clipboard


async def test_a_remedy_that_cannot_be_started_is_told(asked: Asked, tmp_path: Path) -> None:
    app = wizard_at("start", toolchain=True)
    gone = str(tmp_path / "no-such-program")
    async with app.run_test() as pilot:
        cured = finding("zig", "missing", "not installed", remedy=running("Run it.", (gone,)))
        screen = await ask(pilot, cured)
        await pilot.press("y")
        await until(pilot, lambda: screen.phase == "failed", "the failure")
        assert "cannot be started" in told(app, "#told")


@pytest.mark.parametrize("key", ["x", "escape", "ctrl+c"])
async def test_stopping_asks_and_leaves_nothing(asked: Asked, tmp_path: Path, key: str) -> None:
    pid = tmp_path / "pid"
    code = (
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); print('at work'); time.sleep(600)"
    )
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        screen = await ask(pilot, curing(code))
        await pilot.press("y")
        await until(pilot, lambda: "at work" in words(app), "its output", settle=False)
        await pilot.press(key)
        assert isinstance(app.screen, ConfirmModal)
        await pilot.press("n")
        assert app.screen is screen
        assert screen.running
        await pilot.press(key, "y")
        if key == "ctrl+c":
            await until_gone(pilot)
        else:
            await until(pilot, lambda: screen.phase == "stopped", "the end")
    gone = psutil.wait_procs([p for p in psutil.process_iter() if p.pid == int(pid.read_text())], timeout=60)
    assert not gone[1]
    assert app.return_code == (0 if key == "ctrl+c" else None)


async def until_gone(pilot: Pilot[Any]) -> None:
    for _ in range(2000):
        if pilot.app._exit:
            return
        await pilot.pause(0.05)
    pytest.fail("The application stays.")


async def test_another_environment(asked: Asked, tmp_path: Path) -> None:
    usual, other, occupied = (str(tmp_path / name) for name in ("usual", "other", "occupied"))
    Path(occupied).mkdir()
    (Path(occupied) / "thesis.tex").write_text("precious")
    code = f"import os; os.makedirs({usual!r})"
    app = wizard_at("start", toolchain=True)
    async with app.run_test(size=(100, 32)) as pilot:
        screen = await ask(pilot, curing(code, environment=usual))
        field = screen.query_one("#folder", Input)
        assert field.value == usual
        field.value = occupied
        await pilot.pause()
        assert "holds other things" in told(app, "#told")
        await pilot.press("y")
        assert screen.phase == "asking"
        field.value = other
        await pilot.pause()
        assert told(app, "#told") == ""
        assert other in told(app, "#lines").replace("\n", "")
        await pilot.press("y")
        await until(pilot, lambda: screen.phase == "done", "the end")
    assert Path(other).is_dir()
    assert not Path(usual).exists()


@at_every_size
def test_a_remedy_looks_as_before(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    assert snap(snap_compare, wizard_at("start", toolchain=True), size, showing("wasm-runtime", "enter"))
