"""The whole way with the real engine: from the start to an export, a preset, and the same bytes again."""

import hashlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_terminal import Terminal
from textual.pilot import Pilot
from textual.widgets import Input, OptionList
from tui_support import screen_text, settled, until, wizard_at, words

from engine import preset, runner
from engine.events import RunEnded
from engine.plan import BUILTIN_DEMO
from tui.app import WizardApp
from tui.draft import Draft
from tui.screens.step import StepScreen

WORK = ("params_shard_0.bin", "mlc-chat-config.json", "tensor-cache.json", "model-webgpu.wasm")


def step(app: WizardApp) -> str:
    """The step on the screen; "start" where there is none."""
    return app.screen.STEP if isinstance(app.screen, StepScreen) else "start"


async def until_step(pilot: Pilot[Any], name: str) -> None:
    """Wait for a step, to which a run may have to lead."""
    await until(pilot, lambda: step(pilot.app) == name, f"the step {name}")  # type: ignore[arg-type]


def digests(output: Path) -> dict[str, str]:
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in WORK}


async def test_a_new_export_becomes_a_preset_that_repeats_it(wizard_home: Path) -> None:
    app = wizard_at("start")
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        await pilot.press("enter")
        await until_step(pilot, "model")
        await pilot.press(*BUILTIN_DEMO, "enter")
        for name in ("quantize", "context", "target", "review"):
            await until_step(pilot, name)
            if name == "context":
                field = app.screen.query(Input).first()
                field.focus()
                await pilot.press("ctrl+u", *"512")
            if name != "review":
                await pilot.press("ctrl+n")
        # A look back on the way loses nothing.
        await pilot.press("escape", "escape")
        await until_step(pilot, "context")
        await pilot.press("ctrl+n", "ctrl+n")
        await until_step(pilot, "review")
        await pilot.press("ctrl+r")
        await until_step(pilot, "result")
        output = wizard_home / app.draft.plan().output
        assert all((output / name).is_file() for name in WORK)
        assert "model-webgpu.wasm" in screen_text(app)
        assert {"review", "run"} <= app.draft.done
        await pilot.press("ctrl+s")
        await pilot.pause()
        await pilot.press("ctrl+u", *"again", "enter")
        await settled(pilot)
    plan = preset.load("again")
    assert (plan.source, plan.context_window_size) == (BUILTIN_DEMO, 512)
    first = digests(output)
    *_, ended = runner.run(plan, threading.Event(), fresh=True)
    assert isinstance(ended, RunEnded)
    assert (ended.outcome, Path(ended.output)) == ("done", output)
    assert digests(output) == first


async def test_a_stopped_run_goes_on_from_the_start(wizard_home: Path) -> None:
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await settled(pilot)
        # Compiling takes seconds, so that there is something to stop.
        app.begin(Draft.from_plan(preset.load("demo", ["output.directory=out"])), "run")
        await pilot.pause()
        assert step(app) == "run"
        await pilot.press("x")
        await pilot.press("y")
        await settled(pilot)
        assert step(app) == "run"
        assert "stopped" in screen_text(app).casefold()
        app.action_start()
        await settled(pilot)
        box = app.screen.query_one("#beginnings", OptionList)
        number = next(n for n, o in enumerate(box.options) if (o.id or "").startswith("run:"))
        box.highlighted = number
        await pilot.press("enter")
        await until_step(pilot, "result")
        assert (wizard_home / "out" / "export-receipt.json").is_file()
        app.action_start()
        await settled(pilot)
        assert not any(
            (o.id or "").startswith("run:") for o in app.screen.query_one("#beginnings", OptionList).options
        )


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals and signals")
def test_a_killed_screen_leaves_no_orphan_and_a_run_that_goes_on(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.wait_for("gemma270m")
    terminal.send("\x1b[B")
    terminal.wait_for("no download, a minute")
    terminal.send("r")
    output = tmp_path / "mlc-demo"
    # Compile is all that is left to do: the files of a stage are in place a moment before it counts as done.
    terminal.drain_until((output / ".mlc-wizard" / "compile.partial").is_dir)
    weights = (output / "params_shard_0.bin").stat()
    children = psutil.Process(terminal.pid).children(recursive=True)
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.wait_for_end()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert not (output / "export-receipt.json").exists()
    again = Terminal(tmp_path)
    again.wait_for("Continue mlc-demo")
    again.send("\x1b[B")
    again.wait_for("convert weights, generate config")
    again.send("\r")
    again.drain_until((output / "export-receipt.json").is_file)
    again.wait_for("Exported")
    assert again.leave("\x11") == 0
    now = (output / "params_shard_0.bin").stat()
    assert (now.st_ino, now.st_mtime_ns) == (weights.st_ino, weights.st_mtime_ns)


async def test_a_run_that_cannot_begin_says_why_and_the_plan_can_be_mended(wizard_home: Path) -> None:
    (wizard_home / "out").mkdir()
    (wizard_home / "out" / "params_shard_0.bin").write_bytes(b"of somebody else")
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await settled(pilot)
        app.begin(Draft.from_plan(preset.load("demo", ["output.directory=out"])), "run")
        await until(pilot, lambda: "did not write there" in words(app), "the reason")
        await pilot.press("e")
        await until_step(pilot, "review")
        app.draft.choose(output=Path("other"), compile=False)
        await settled(pilot)
        await pilot.press("ctrl+r")
        await until_step(pilot, "result")
        assert (wizard_home / "other" / "export-receipt.json").is_file()
        assert (wizard_home / "out" / "params_shard_0.bin").read_bytes() == b"of somebody else"
