"""The step Result and the save dialog."""

import dataclasses
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static
from tui_runs import PLAN, Clock, done_app, visible
from tui_support import at_every_size, colours, settled, snap, until, words

from engine import preset
from engine.errors import StageError, ToolchainError, UsageError
from engine.events import Check
from engine.plan import BUILTIN_DEMO
from engine.run import receipt
from tui.messages import VerifyEnded, VerifySaid
from tui.opening import open_folder
from tui.screens.confirm import ConfirmModal
from tui.screens.result import ResultScreen
from tui.screens.run import NOTE, RunScreen
from tui.screens.save import SaveModal, replayable, suggested_name

# --- result --------------------------------------------------------------------------------------


async def test_the_result_lists_files_checks_and_commands(wizard_home: Path) -> None:
    app = done_app()
    async with app.run_test(size=(80, 40)) as pilot:
        text = visible(pilot)
        for part in ("Exported in 3 min 41 s", "params_shard_0.bin … params_shard_9.bin", "315 MB", "5.2 MB"):
            assert part in text
        assert "3 of 3 checks passed" in text
        assert "gemma3_text, q4f32_1" in text
        assert "model_list" in text


async def test_a_result_that_does_not_fit_is_scrolled_with_the_keys(wizard_home: Path) -> None:
    app = done_app()
    async with app.run_test(size=(40, 14)) as pilot:
        assert "5242880" not in visible(pilot)
        await pilot.press("pagedown", "pagedown", "pagedown")
        await until(pilot, lambda: "library" in visible(pilot), "the last check")
        assert isinstance(app.focused, OptionList)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[threading.Event]:
    """Verifications are noted here instead of begun; the test says what they say."""
    begun: list[threading.Event] = []
    monkeypatch.setattr(ResultScreen, "_verify", lambda _self, _output, cancel: begun.append(cancel))
    return begun


async def test_verify_again_shows_checks_as_they_come(
    wizard_home: Path, clock: Clock, asked: list[threading.Event]
) -> None:
    app = done_app()
    async with app.run_test(size=(80, 40)) as pilot:
        await pilot.press("v", "v")
        assert len(asked) == 1
        app.screen.post_message(VerifySaid(Check(name="window", passed=True, found="4096")))
        await pilot.pause()
        assert "Verifying again… 1 passed so far" in words(app)
        assert "gemma3_text" not in words(app)
        app.screen.post_message(VerifySaid(Check(name="shards", passed=False, found="2 bytes are missing")))
        app.screen.post_message(VerifyEnded(None))
        await pilot.pause()
        assert "✗ 1 of 2 checks passed, verified again at 05:00" in words(app)
        assert "Run again, key r" in words(app)
        await pilot.press("v")
        assert len(asked) == 2
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "the run", settle=False)
        assert asked[1].is_set()
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, ResultScreen), "the result", settle=False)
        assert "3 of 3 checks passed" in words(app)


async def test_a_preset_is_named_where_it_makes_the_same(wizard_home: Path) -> None:
    app = done_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await pilot.pause()
        assert "make it again" not in words(app)
        app.draft.notes[NOTE].preset = "mine"
        app.begin(app.draft, "result")
        await settled(pilot)
        assert "make it again: mlc-wizard --preset mine" in words(app)


async def test_checks_that_come_to_no_end_say_why(
    wizard_home: Path, clock: Clock, asked: list[threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = done_app()
    async with app.run_test(size=(80, 40)) as pilot:
        await pilot.press("v")
        error = StageError("It crashed.", why="A bug.", remedy="Run it all.", fix="fresh")
        app.screen.post_message(VerifyEnded(error))
        await pilot.pause()
        remedy = "Run it all. R, in the step Run, does."
        for part in ("✗ The checks came to no end", "It crashed. A bug.", remedy):
            assert part in words(app)
        assert not colours(app)


# --- the folder ----------------------------------------------------------------------------------


class Desktop:
    """A machine with a desktop: what it was asked to show, and how its opener ends."""

    def __init__(self, folder: Path, code: int = 0) -> None:
        self.shown = folder / "shown"
        opener = folder / "xdg-open"
        opener.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"open({str(self.shown)!r}, 'w').write(sys.argv[1])\nsys.exit({code})\n"
        )
        opener.chmod(0o755)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return tmp_path


needs_scripts = pytest.mark.skipif(os.name != "posix", reason="scripts that are programs")


@needs_scripts
async def test_o_opens_the_folder(wizard_home: Path, linux: Path) -> None:
    desktop = Desktop(linux)
    app = done_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("o")
        await settled(pilot)
    assert desktop.shown.read_text() == "/exports/demo"


@needs_scripts
async def test_without_a_desktop_the_path_is_copied(
    wizard_home: Path, linux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY")
    app = done_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("o")
        await until(pilot, lambda: app.clipboard == "/exports/demo", "the path")
        assert any("There is no desktop here" in note.message for note in app._notifications)


@needs_scripts
def test_an_opener_that_fails(linux: Path) -> None:
    with pytest.raises(ToolchainError, match="xdg-open is not installed"):
        open_folder(linux)
    Desktop(linux, 3)
    with pytest.raises(ToolchainError, match="exit code 3"):
        open_folder(linux)


@needs_scripts
def test_macos(linux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    desktop = Desktop(linux)
    (linux / "xdg-open").rename(linux / "open")
    open_folder(linux)
    assert desktop.shown.read_text() == str(linux)
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4 1 5.6.7.8 22")
    with pytest.raises(ToolchainError, match="no desktop"):
        open_folder(linux)


def test_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[Path] = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "startfile", shown.append, raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    open_folder(tmp_path)
    assert shown == [tmp_path]


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
