"""The screen Toolchain, fed with findings, and remedies that are really run."""

import datetime
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_terminal import Terminal
from textual.pilot import Pilot
from textual.widgets import Button, Input
from tui_support import at_every_size, screen_text, settled, snap, told, until, wizard_at, words

from engine.catalog import TARGETS
from engine.toolchain import verdict
from engine.toolchain.check import Found, Started, check
from engine.toolchain.finding import Finding, Remedy, running
from engine.toolchain.groups.emscripten import VERSION as EMSCRIPTEN
from engine.toolchain.probe import Probe
from engine.toolchain.registry import BY_ID, PROBES
from tui.app import WizardApp
from tui.draft import Draft
from tui.messages import CheckEnded, CheckSaid
from tui.screens.confirm import ConfirmModal
from tui.screens.remedy import RemedyScreen
from tui.screens.start import StartScreen
from tui.screens.toolchain import ToolchainScreen
from tui.widgets.check_list import ProbeList

Asked = list[list[str]]
NOON = datetime.datetime(2026, 11, 23, 12, 0)


@pytest.fixture
def asked(wizard_home: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Checks are noted here instead of begun; the test says what is found."""
    checks: Asked = []

    def note(_self: ToolchainScreen, probes: Sequence[Probe], _cancel: threading.Event) -> None:
        checks.append([probe.id for probe in probes])

    monkeypatch.setattr(ToolchainScreen, "_look", note)
    # What the backends compile for is no matter of the screen.
    some = {"embedded": ("webgpu", "cpu"), "mlc_llm": tuple(TARGETS), "docker": ("webgpu", "cpu", "cuda")}
    monkeypatch.setattr(verdict, "BACKENDS", some)
    monkeypatch.setattr(ToolchainScreen, "clock", staticmethod(lambda: NOON))
    monkeypatch.setattr(RemedyScreen, "clock", staticmethod(lambda: NOON))
    return checks


def finding(name: str, status: Any = "ok", found: str = "1.0, as it should be", **changes: Any) -> Finding:
    return BY_ID[name].finding(status, found, **changes)


def a_machine() -> list[Finding]:
    """Some machine: what the embedded backend needs, and little else."""
    told = {
        "python": "CPython 3.12.4, x86_64, /home/ada/.venv/bin/python",
        "tvm": f"{BY_ID['tvm'].wanted}, /home/ada/.venv/lib/python3.12/site-packages/tvm",
        "memory": "15.5 GiB, 9.1 GiB of it free",
        "browser": "/usr/bin/chromium",
    }
    findings = {p.id: finding(p.id, found=told.get(p.id, "as wanted")) for p in PROBES}
    for name in (
        "git-lfs",
        "emcc",
        "android-ndk",
        "node",
        "xcode",
        "metal",
        "mlc_llm",
        "docker-image",
        "docker-mlc_llm",
    ):
        findings[name] = finding(name, "missing", "not found", remedy=Remedy(told="Install it."))
    findings["wasm-runtime"] = finding(
        "wasm-runtime",
        "warn",
        "not compiled yet, in /home/ada/.cache/mlc-wizard/wasm-runtime",
        remedy=running("Compile it now.", ("python", "-P", "-m", "engine.embedded.wasm", "build")),
    )
    findings["emcc"] = finding(
        "emcc",
        "broken",
        "emcc does not answer within 14 s",
        remedy=Remedy(
            told=f"Install Emscripten {EMSCRIPTEN}.",
            commands=(f"./emsdk/emsdk install {EMSCRIPTEN}", ". ./emsdk/emsdk_env.sh"),
        ),
    )
    return list(findings.values())


async def feed(pilot: Pilot[Any], *findings: Finding) -> ToolchainScreen:
    screen = pilot.app.screen
    assert isinstance(screen, ToolchainScreen)
    for one in findings:
        screen.post_message(CheckSaid(Started(one.id)))
        screen.post_message(CheckSaid(Found(one)))
    await pilot.pause()
    return screen


async def highlight(pilot: Pilot[Any], name: str) -> None:
    rows = pilot.app.screen.query_one(ProbeList)
    rows.highlighted = rows.get_option_index(name)
    await pilot.pause()
    await pilot.pause()


def row(app: WizardApp, name: str) -> str:
    return str(app.screen.query_one(ProbeList).get_option(name).prompt)


async def opened(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, ToolchainScreen), "the toolchain", settle=False)
    await pilot.pause()


# --- the screen ----------------------------------------------------------------------------------


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


# --- remedies ------------------------------------------------------------------------------------


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


# --- pictures ------------------------------------------------------------------------------------


def showing(name: str, *keys: str) -> Callable[[Pilot[Any]], Any]:
    async def prepare(pilot: Pilot[Any]) -> None:
        await feed(pilot, *a_machine(), finding("tvm-codegen", found="cuda, llvm, webgpu"))
        pilot.app.screen.state.asked -= set(BY_ID) - {"docker", "vulkan-loader"}
        pilot.app.screen.post_message(CheckSaid(Started("docker")))
        await pilot.pause()
        await highlight(pilot, name)
        await pilot.press(*keys)
        await pilot.pause()

    return prepare


@at_every_size
def test_the_toolchain_looks_as_before(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    assert snap(snap_compare, wizard_at("start", toolchain=True), size, showing("emcc"))


@at_every_size
def test_a_target_looks_as_before(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    assert snap(snap_compare, wizard_at("start", toolchain=True), size, showing("python", "f"))


@at_every_size
def test_a_remedy_looks_as_before(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    assert snap(snap_compare, wizard_at("start", toolchain=True), size, showing("wasm-runtime", "enter"))
