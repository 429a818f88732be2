"""The step Review, driven as a person drives it."""

from dataclasses import replace
from pathlib import Path

from textual.widgets import Input
from tui_runs import Begun
from tui_steps_support import draft, gemma, home, step_of
from tui_support import screen_text, settled, told, until, wizard_at, words

from engine.plan import BUILTIN_DEMO, ExportPlan
from engine.run.job import prepare
from engine.shell import shell_line
from tui.draft import Draft
from tui.screens.review import Reviewed, ReviewScreen

__all__ = ["home"]


async def test_the_review_shows_and_copies_the_very_commands() -> None:
    app = wizard_at("review", draft())
    async with app.run_test(size=(200, 60)) as pilot:
        await settled(pilot)
        expected = [shell_line(c.argv) for c in prepare(app.draft.plan()).commands()]
        shown = "".join(told(app, "#commands").split())  # lines break as the width wants it
        for line in expected:
            assert "".join(line.split()) in shown
        await pilot.press("c")
        assert app.clipboard.splitlines() == expected
        assert isinstance(app.screen, ReviewScreen)
        assert app.screen.complete


async def test_the_review_asks_again_for_another_folder(home: Path) -> None:
    (home / "foreign").mkdir()
    (home / "foreign" / "mlc-chat-config.json").write_text("{}")
    app = wizard_at("review", draft())
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        assert "84.0 GB free" in screen_text(app)
        await pilot.press("o", "home", "ctrl+k", *"foreign", "enter")
        await until(pilot, lambda: "did not write there" in told(app, "#refused"), "the reason")
        assert isinstance(app.screen, ReviewScreen)
        assert not app.screen.complete
        await pilot.press("ctrl+r")
        await settled(pilot)
        assert step_of(app) == "review"
        await pilot.press("o", "end", "2", "enter")
        await until(pilot, lambda: "Made by the run" in words(app), "the new folder")
        assert app.draft.plan().output == Path("foreign2")
        await pilot.press("o", "home", "ctrl+k")
        await settled(pilot)
        assert app.draft.plan().output.name == "demo-q4f32_1-MLC"


async def test_the_review_takes_advice_and_shows_the_new_commands() -> None:
    app = wizard_at("review", draft(context_window_size=4096))
    async with app.run_test(size=(110, 50)) as pilot:
        await settled(pilot)
        assert "Context above the model's maximum" in screen_text(app)
        await pilot.press("u")
        await until(pilot, lambda: "--context-window-size 1024" in words(app), "the new commands")
        assert app.draft.plan().context_window_size == 1024
        assert "Context above" not in screen_text(app)


async def test_advice_wins_over_text_that_is_no_size() -> None:
    found = draft(context_window_size=4096)
    found.notes["sizes"] = {"context_window_size": "0"}
    app = wizard_at("review", found)
    async with app.run_test(size=(110, 50)) as pilot:
        await settled(pilot)
        await pilot.press("u", "3")
        await settled(pilot)
        assert step_of(app) == "context"
        assert app.screen.query(Input).first().value == "1024"
        assert app.screen.complete


async def test_a_model_on_the_hub_is_reviewed_without_its_facts() -> None:
    app = wizard_at("review", gemma())
    async with app.run_test(size=(99, 50)) as pilot:
        await settled(pilot)
        assert "SNAPSHOT stands for the folder" in screen_text(app)
        assert "what is needed is known with the model" in words(app)


async def test_an_answer_about_another_plan_is_not_shown() -> None:
    app = wizard_at("review", draft())
    async with app.run_test(size=(110, 50)) as pilot:
        await settled(pilot)
        other = replace(app.draft.plan(), output=Path("elsewhere"))
        app.screen.post_message(Reviewed(other, commands=("rm -rf /",)))
        await until(pilot, lambda: "convert_weight" in words(app), "the commands")
        assert "rm -rf" not in screen_text(app)


async def test_the_commands_are_one_key_away_where_they_are_below_the_edge(wizard_home: Path) -> None:
    app = wizard_at("review", Draft.from_plan(ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1")))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "engine.embedded" not in words(app)
        await pilot.press("c")
        await until(pilot, lambda: "engine.embedded convert_weight" in words(app), "the commands")
        assert len(app.clipboard.splitlines()) == 4


async def test_the_key_that_leads_through_the_steps_runs_nothing(begun: Begun) -> None:
    app = wizard_at("context", draft())
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        for _ in range(4):
            await pilot.press("ctrl+n")
            await settled(pilot)
        assert step_of(app) == "review"
        assert not begun
        await pilot.press("ctrl+r")
        await until(pilot, lambda: bool(begun), "the run", settle=False)
