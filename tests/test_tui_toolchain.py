"""The screen Toolchain, fed with findings."""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_terminal import Terminal
from textual.widgets import Input
from tui_support import at_every_size, screen_text, settled, snap, told, until, wizard_at, words
from tui_toolchain_support import Asked, a_machine, asked, feed, finding, highlight, opened, row, showing

from engine.toolchain.check import Started, check
from engine.toolchain.groups.emscripten import VERSION as EMSCRIPTEN
from engine.toolchain.registry import BY_ID, PROBES
from tui.draft import Draft
from tui.messages import CheckEnded, CheckSaid
from tui.screens.confirm import ConfirmModal
from tui.screens.start import StartScreen
from tui.screens.toolchain import ToolchainScreen
from tui.widgets.check_list import ProbeList

__all__ = ["asked"]


async def test_it_opens_from_everywhere_and_gives_back_what_was_there(asked: Asked) -> None:
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("t")
        await opened(pilot)
        assert asked == [[probe.id for probe in PROBES]]
        await pilot.press("escape")
        assert isinstance(app.screen, StartScreen)
        await pilot.press("n")
        await settled(pilot)
        await pilot.press(*"tiny")
        assert app.screen.query_one("#source", Input).value == "tiny", "t is a letter in a field"
        await pilot.press("f2")
        await opened(pilot)
        await pilot.press("t", "f2")
        assert sum(isinstance(screen, ToolchainScreen) for screen in app.screen_stack) == 1
        await pilot.press("escape")
        assert app.screen.query_one("#source", Input).value == "tiny"
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "Toolchain" in titles


async def test_the_flag_opens_it_in_front_of_the_start(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        await opened(pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, StartScreen)


async def test_one_row_changes_at_a_time(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test(size=(110, 32)) as pilot:
        await opened(pilot)
        assert "waiting" in row(app, "tvm")
        assert "0 of" in words(app)
        app.screen.post_message(CheckSaid(Started("tvm")))
        await pilot.pause()
        assert "● checking apache-tvm" in row(app, "tvm")
        assert "waiting" in row(app, "zig")
        await feed(pilot, finding("tvm", "broken", "crashed (SIGABRT)"))
        assert "✗ broken   apache-tvm" in row(app, "tvm")
        assert "crashed (SIGABRT)" in row(app, "tvm")
        assert f"1 of {len(PROBES)} checked" in words(app)


async def test_the_verdict_comes_with_what_it_needs(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "○ webgpu" in words(app)
        await feed(pilot, *a_machine())
        assert "✓ webgpu ✓ cpu" in words(app)
        assert "checked at 12:00" in words(app)
        await feed(pilot, finding("wasm-runtime", "broken", "the folder cannot be written"))
        assert "✗ webgpu ✓ cpu" in words(app)
        await pilot.press("f")
        assert "the embedded backend lacks Runtime for browsers" in told(app, "#verdicts")


async def test_filtering_by_target(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test(size=(110, 32)) as pilot:
        await opened(pilot)
        await feed(pilot, *a_machine())
        rows = app.screen.query_one(ProbeList)
        assert len(rows.options) == len(PROBES)
        await pilot.press("f", "f")
        names = [option.id for option in rows.options]
        assert "What cpu needs" in words(app)
        assert {"python", "tvm", "memory"} <= set(names)
        assert not {"browser", "cuda-driver", "wasm-runtime"} & set(names)
        await pilot.press("F")
        assert "What webgpu needs" in words(app)
        assert "wasm-runtime" in [option.id for option in rows.options]
        await pilot.press("a")
        assert len(rows.options) == len(PROBES)


async def test_all_about_a_row(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test(size=(80, 40)) as pilot:
        await opened(pilot)
        await feed(pilot, *a_machine())
        await highlight(pilot, "emcc")
        text = words(app)
        for part in ("found emcc does not answer", f"wanted {EMSCRIPTEN}", "needed for webgpu (mlc_llm)"):
            assert part in text
        assert f"$ ./emsdk/emsdk install {EMSCRIPTEN}" in text


async def test_a_low_window_keeps_the_cursor_in_sight_and_scrolls_the_rest(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test(size=(60, 18)) as pilot:
        await opened(pilot)
        await feed(pilot, *a_machine())
        await highlight(pilot, "emcc")
        await until(pilot, lambda: "space more" in words(app), "the hint", settle=False)
        assert "✗ broken   Emscripten" in screen_text(app)
        for _ in range(4):
            if "emsdk_env.sh" in words(app):
                break
            await pilot.press("space")
            await pilot.pause()
        assert "emsdk_env.sh" in words(app)


async def test_looking_again(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        await opened(pilot)
        await pilot.press("r")
        assert len(asked) == 1, "it is being looked at already"
        screen = await feed(pilot, *a_machine())
        screen.post_message(CheckEnded(tuple(BY_ID)))
        await highlight(pilot, "emcc")
        await pilot.press("r")
        assert asked[1:] == [["emcc"]]
        assert "waiting" in row(app, "emcc")
        await feed(pilot, finding("emcc", found=EMSCRIPTEN))
        assert "✓ ok       Emscripten" in row(app, "emcc")
        await pilot.press("R")
        assert asked[2:] == [[probe.id for probe in PROBES]]


async def test_what_was_found_is_there_on_the_next_visit(asked: Asked) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        await opened(pilot)
        await feed(pilot, *a_machine())
        await pilot.press("escape", "t")
        await opened(pilot)
        assert "✓ webgpu" in words(app), "the verdict of before stands until it is known better"
        assert len(asked) == 2


async def test_copying_a_command_and_a_report(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        await opened(pilot)
        await pilot.press("c")
        assert app.clipboard == "", "nothing is known yet"
        await feed(pilot, *a_machine())
        await highlight(pilot, "emcc")
        await pilot.press("c")
        assert app.clipboard == f"./emsdk/emsdk install {EMSCRIPTEN}\n. ./emsdk/emsdk_env.sh"
        await highlight(pilot, "node")
        await pilot.press("c")
        assert app.clipboard == "Install it."
        await pilot.press("y")
        assert "x broken   Emscripten: emcc does not answer" in app.clipboard
        assert "~/.venv/bin/python" in app.clipboard
        assert "/home/ada" not in app.clipboard


@pytest.mark.parametrize("size", [(40, 10), (20, 5), (60, 18), (200, 50)])
async def test_it_works_in_any_terminal(asked: Asked, size: tuple[int, int]) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await feed(pilot, *a_machine())
        await pilot.resize_terminal(*size)
        await pilot.press("down", "f", "f", "space", "f1", "escape", "a")
        assert isinstance(app.screen, ToolchainScreen)


async def test_a_probe_is_really_looked_at(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    app = wizard_at("start", toolchain=True)
    async with app.run_test() as pilot:
        await opened(pilot)
        screen = app.screen
        assert isinstance(screen, ToolchainScreen)
        events = check([BY_ID["python"]], threading.Event())
        for event in events:
            screen.post_message(CheckSaid(event))
        await pilot.pause()
        assert f"CPython {sys.version.split()[0]}" in row(app, "python")


async def test_leaving_ends_the_check(wizard_home: Path) -> None:
    """The real one, left in its midst."""
    app = wizard_at("start", toolchain=True)
    before = set(psutil.Process().children(recursive=True))
    async with app.run_test() as pilot:
        await opened(pilot)
        state = app.screen.state
        await until(pilot, lambda: bool(state.at_work), "a probe at work", settle=False)
        await pilot.press("escape")
        await settled(pilot)
    left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=60)[1]
    assert not left


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
def test_in_a_real_terminal(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, HF_HUB_OFFLINE="1", MLC_WIZARD_MLC_LLM=str(tmp_path))
    terminal.wait_for("gemma270m")
    terminal.send("t")
    terminal.wait_for("✓ ok       Python")
    workers = psutil.Process(terminal.pid).children(recursive=True)
    terminal.resize(40, 10)
    terminal.wait_for("Toolchain")
    assert terminal.leave("\x03") == 0
    assert not psutil.wait_procs(workers, timeout=60)[1]


async def test_leaving_a_run_from_the_toolchain_asks_as_the_run_does(
    asked: Asked, begun: list[dict[str, Any]]
) -> None:
    from engine.plan import BUILTIN_DEMO, ExportPlan

    app = wizard_at("run", Draft.from_plan(ExportPlan(source=BUILTIN_DEMO, quantization="q0f16")))
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("t")
        await opened(pilot)
        await pilot.press("ctrl+q")
        assert isinstance(app.screen, ConfirmModal), "the run would stop"
        await pilot.press("n")
        assert app.screen.STEP == "run"
        assert not begun[0]["cancel"].is_set()


@at_every_size
def test_the_toolchain_looks_as_before(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    assert snap(snap_compare, wizard_at("start", toolchain=True), size, showing("emcc"))


@at_every_size
def test_a_target_looks_as_before(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    assert snap(snap_compare, wizard_at("start", toolchain=True), size, showing("python", "f"))
