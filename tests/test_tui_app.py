"""The frame of the screens: start, the way through the steps, help, palette, every size of terminal."""

import os
from itertools import chain
from pathlib import Path

import filelock
import pytest
from real_terminal import Terminal
from textual.color import Color
from textual.theme import BUILTIN_THEMES
from textual.widgets import Input, OptionList, Static
from textual.widgets._footer import FooterKey
from tui_runs import Begun
from tui_support import at_every_size, colours, screen_text, settled, snap, until, wizard_at

from engine.plan import BUILTIN_DEMO, ExportPlan
from engine.preset import save
from engine.run import resume
from tui import steps, symbols
from tui.draft import Draft
from tui.screens.confirm import ConfirmModal
from tui.screens.help import HelpScreen
from tui.screens.step import StepScreen
from tui.theme import WIZARD, contrast, legible

DEMO = ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1", context_window_size=1024)
BROKEN = 'version = 1\n[model]\nsource = "a/b"\n[quantisation]\nmode = "q0f16"\n'


def unfinished_run(output: Path, plan: ExportPlan = DEMO) -> Path:
    """What a run leaves that was killed while it converted."""
    home = output / ".mlc-wizard"
    home.mkdir(parents=True)
    resume.remember(plan, home)
    return home


@pytest.fixture
def presets(wizard_home: Path) -> Path:
    """A good preset of the user's and a broken one."""
    folder = wizard_home.parent / "presets"
    save(ExportPlan(source=BUILTIN_DEMO, quantization="q0f16", description="Mine own"), folder / "mine.toml")
    (folder / "broken.toml").write_text(BROKEN)
    return folder


def listed(app: object) -> dict[str, str]:
    """Id and text of everything that can be chosen at the start."""
    found = app.screen.query_one("#beginnings", OptionList).options  # type: ignore[attr-defined]
    return {str(option.id): str(option.prompt) for option in found if option.id}


async def highlight(pilot, part: str) -> None:
    box = pilot.app.screen.query_one("#beginnings", OptionList)
    box.highlighted = next(n for n, o in enumerate(box.options) if o.id and part in o.id)
    await pilot.pause()


async def test_keys_typed_ahead_find_the_presets(begun: Begun, wizard_home: Path) -> None:
    """Two keys are an export, however fast they come."""
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await pilot.press("down", "r")
        await until(pilot, lambda: bool(begun), "the run", settle=False)
        assert begun[0]["plan"].source == BUILTIN_DEMO


async def test_start_lists_presets_and_tells_why_one_is_broken(presets: Path) -> None:
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await settled(pilot)
        texts = listed(app)
        assert next(iter(texts)) == "new"
        assert {Path(key.partition(":")[2]).stem for key in texts} >= {"mine", "broken", "demo", "gemma270m"}
        broken = next(text for key, text in texts.items() if "broken" in key)
        assert "cannot be used" in broken
        await highlight(pilot, "broken")
        detail = str(app.screen.query_one("#detail", Static).content)
        assert "[quantisation]" in detail
        assert "Did you mean quantization?" in detail
        before = app.screen
        await pilot.press("enter", "r")
        assert app.screen is before


async def test_a_preset_opens_at_the_review_with_its_facts(presets: Path) -> None:
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await settled(pilot)
        await highlight(pilot, "mine")
        await pilot.press("enter")
        await settled(pilot)
        assert isinstance(app.screen, StepScreen)
        assert app.screen.STEP == "review"
        assert app.draft.plan().quantization == "q0f16"
        assert app.draft.preset == app.draft.repeated_by == "mine"
        app.draft.choose(quantization="q0f32")
        assert not app.draft.repeated_by, "the preset makes something else"
        assert app.draft.facts is not None


async def test_removing_a_preset_asks_and_no_is_the_default(presets: Path) -> None:
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await settled(pilot)
        await highlight(pilot, "mine")
        await pilot.press("delete")
        assert isinstance(app.screen, ConfirmModal)
        await pilot.press("enter")
        assert (presets / "mine.toml").exists()
        await pilot.press("delete", "y")
        await settled(pilot)
        assert not (presets / "mine.toml").exists()
        assert not any("mine" in key for key in listed(app))
        await highlight(pilot, "demo")
        await pilot.press("delete")
        assert not isinstance(app.screen, ConfirmModal)


async def test_filter(presets: Path) -> None:
    app = wizard_at("start")
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("slash", *"emo")
        assert [Path(key).stem for key in listed(app)] == ["demo"]
        await pilot.press("z")
        assert not listed(app)
        assert "No name contains" in screen_text(app)
        await pilot.press("escape")
        assert len(listed(app)) > 4
        assert isinstance(app.focused, OptionList)


async def test_an_unfinished_run_is_offered_and_no_other(wizard_home: Path) -> None:
    unfinished_run(wizard_home / "dist" / "killed")
    ended = unfinished_run(wizard_home / "ended").parent
    (ended / "export-receipt.json").write_text("{}")
    running = unfinished_run(wizard_home / "running")
    (unfinished_run(wizard_home / "strange") / resume.PLAN_NAME).write_text("version = 99")
    unfinished_run(wizard_home / "a" / "b" / "too-deep")
    with filelock.FileLock(running / "lock"):
        app = wizard_at("start")
        async with app.run_test() as pilot:
            await settled(pilot)
            runs = [text for key, text in listed(app).items() if key.startswith("run:")]
            assert len(runs) == 1
            assert str(Path("dist") / "killed") in runs[0]
    found = resume.unfinished(wizard_home)
    assert {run.plan.output for run in found} == {Path("dist/killed"), Path("running")}
    assert resume.unfinished(ended.parent / "dist" / "killed")[0].plan.output == wizard_home / "dist/killed"


async def test_the_way_through_the_steps(wizard_home: Path) -> None:
    app = wizard_at("model", Draft(DEMO))
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        app.set_focus(None)
        await pilot.press("4")
        assert app.screen.STEP == "model", "a step whose forerunners were not done"
        for name in ("quantize", "context", "target", "review"):
            await pilot.press("ctrl+n")
            await settled(pilot)
            assert isinstance(app.screen, StepScreen)
            assert app.screen.STEP == name  # noqa: SIM300
        app.set_focus(None)
        await pilot.press("2")
        await settled(pilot)
        assert app.screen.STEP == "quantize"
        assert await pilot.click("StepRail", offset=(3, 0))
        await settled(pilot)
        assert app.screen.STEP == "model"
        await pilot.press("escape")
        await settled(pilot)
        assert app.screen.query("#beginnings")
        assert app.draft.plan().context_window_size == 1024


@pytest.mark.parametrize("name", ["start", *steps.NAMES[:5]])
async def test_every_screen_has_help_and_works_in_any_terminal(wizard_home: Path, name: str) -> None:
    app = wizard_at(name, Draft.from_plan(DEMO))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        about = app.screen
        assert len(about.HELP.strip().splitlines()) >= 3
        await pilot.press("f1")
        await settled(pilot)
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        assert app.screen is about
        app.set_focus(None)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        for size in ((40, 10), (200, 50), (20, 5), (80, 24)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
        assert app.screen is about


async def test_the_palette_offers_the_steps_that_can_be_reached(wizard_home: Path) -> None:
    draft = Draft(DEMO)
    draft.done = {"model"}
    app = wizard_at("quantize", draft)
    async with app.run_test() as pilot:
        await settled(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert titles == ["Go to Model", "New export", "Start", "Toolchain", "Help", "Theme", "Quit"]
        await pilot.press("ctrl+p")
        await settled(pilot)
        await pilot.press(*"model")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await settled(pilot)
        assert app.screen.STEP == "model"


async def test_a_terminal_without_these_characters_gets_ascii(
    wizard_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbols, "needs_ascii", lambda: True)
    app = wizard_at("review", Draft.from_plan(DEMO))
    async with app.run_test() as pilot:
        await settled(pilot)
        shown = screen_text(app)
        assert shown.isascii()
        assert "Review" in shown


def test_symbols_keep_their_width() -> None:
    text = "✓●○✗▲ ╭─╮│╰╯ ━█ → naïve"
    assert symbols.to_ascii(text).isascii()
    assert len(symbols.to_ascii(text)) == len(text)
    assert len(set(map(symbols.to_ascii, "✓●○✗▲"))) == 5


async def test_no_color_leaves_no_colour(wizard_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = wizard_at("review", Draft.from_plan(DEMO))
    async with app.run_test() as pilot:
        await settled(pilot)
        assert not colours(app)


@at_every_size
def test_start_looks_as_before(snap_compare, presets: Path, size: tuple[int, int]) -> None:
    async def to_broken(pilot) -> None:
        await highlight(pilot, "broken")

    unfinished_run(presets.parent / "work" / "dist" / "killed")
    assert snap(snap_compare, wizard_at("start"), size, to_broken)


@at_every_size
def test_help_looks_as_before(snap_compare, wizard_home: Path, size: tuple[int, int]) -> None:
    async def open_help(pilot) -> None:
        await pilot.press("f1")

    assert snap(snap_compare, wizard_at("start"), size, open_help)


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
class TestInARealTerminal:
    """The program as a person meets it."""

    def test_keys_resize_and_quit(self, tmp_path: Path) -> None:
        terminal = Terminal(tmp_path)
        assert "╭" in terminal.wait_for("gemma270m")
        terminal.send("n")
        terminal.wait_for("On this machine")
        terminal.send("builtin:demo")
        terminal.wait_for("chat template")  # all facts are there: nothing else draws meanwhile
        terminal.resize(40, 10)
        terminal.wait_for("1 Model")
        assert terminal.leave("\x11") == 0

    def test_ctrl_c_leaves(self, tmp_path: Path) -> None:
        terminal = Terminal(tmp_path)
        terminal.wait_for("gemma270m")
        assert terminal.leave("\x03") == 0

    def test_a_terminal_of_latin_1(self, tmp_path: Path) -> None:
        terminal = Terminal(tmp_path, PYTHONUTF8="0", PYTHONIOENCODING="latin-1")
        assert "+-" in terminal.wait_for("gemma270m")
        assert terminal.leave("\x11") == 0
        assert terminal.raw.isascii()


async def test_an_input_keeps_letters_that_are_keys_elsewhere(wizard_home: Path) -> None:
    app = wizard_at("model", Draft())
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press(*"p?1n")
        assert app.screen.query_one("#source", Input).value == "p?1n"
        assert app.screen.STEP == "model"


async def test_the_keys_that_are_shown_are_those_that_work(presets: Path) -> None:
    def shown(app) -> set[str]:
        return {str(key.render()) for key in app.screen.query(FooterKey)}

    app = wizard_at("start")
    async with app.run_test(size=(110, 24)) as pilot:
        await until(pilot, lambda: "? Help" in shown(app), "the keys")
        assert {"n New", "/ Filter"} <= shown(app)
        assert "del Remove" not in shown(app)
        await highlight(pilot, "mine")
        await until(pilot, lambda: "del Remove" in shown(app), "the key for presets of one's own")
        await pilot.press("slash")  # what is a letter from now on is no key
        await until(pilot, lambda: shown(app) == {"esc Show all", "F1 Help", "^q Quit"}, "other keys")
        await pilot.press("f1")
        assert isinstance(app.screen, HelpScreen)


async def test_the_first_frame_is_laid_out_for_its_size(wizard_home: Path) -> None:
    """Where only a resize did that, every step would flicker on its way in."""
    app = wizard_at("start")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for name, classes in (("model", {"-narrow", "-short"}), ("review", {"-narrow", "-short"})):
            assert classes <= app._make(name).classes
        await pilot.resize_terminal(120, 40)
        await settled(pilot)
        assert {"-wide", "-tall"} <= app._make("model").classes


async def test_every_theme_can_be_read(wizard_home: Path) -> None:
    """Themes have cursors of their own, on which muted text may be the colour of its background."""
    app = wizard_at("target", Draft.from_plan(DEMO))
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        for name in (WIZARD.name, *BUILTIN_THEMES):
            if "ansi" in name:
                continue  # the terminal's own colours, which nobody here knows
            app.theme = name
            await settled(pilot)
            for text, style in (
                (s.text.strip(), s.style) for s in chain(*app.screen._compositor.render_strips())
            ):
                if style and style.color and style.bgcolor and any(map(str.isalnum, text)):
                    colour, ground = (Color(*c.get_truecolor()) for c in (style.color, style.bgcolor))
                    assert contrast(colour, ground) > 2.5, (name, text)


@pytest.mark.parametrize("width", [20, 40, 60, 80])
async def test_the_key_line_has_whole_keys_and_always_help(wizard_home: Path, width: int) -> None:
    app = wizard_at("start")
    async with app.run_test(size=(110, 24)) as pilot:
        await settled(pilot)
        everything = [str(key.render()) for key in app.screen.query(FooterKey)]
        await pilot.resize_terminal(width, 24)
        await until(
            pilot,
            lambda: 0 < max((key.region.right for key in app.screen.query(FooterKey)), default=0) <= width,
            "fewer keys",
        )
        keys = list(app.screen.query(FooterKey))
        shown = [str(key.render()) for key in keys]
        assert "? Help" in shown
        assert shown == [text for text in everything if text in shown]
        assert (shown == everything) == (width >= 80)
        await pilot.resize_terminal(110, 24)
        await until(
            pilot, lambda: [str(k.render()) for k in app.screen.query(FooterKey)] == everything, "every key"
        )


def test_muted_text_is_legible_and_the_terminals_own_colours_stay() -> None:
    own = {"foreground": "#888888", "background": "#101010", "foreground-muted": "#88888899"}
    muted = Color.parse(legible(own)["foreground-muted"])
    assert contrast(Color.parse("#101010") + muted, Color.parse("#101010")) > 4.4  # alpha has 256 steps
    assert muted.a < 1, "and muted still"
    terminal = {
        "foreground": "ansi_default",
        "background": "ansi_default",
        "foreground-muted": "ansi_default 50%",
    }
    assert legible(terminal) == terminal
