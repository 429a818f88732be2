"""The step Quantize, driven as a person drives it."""

from pathlib import Path

import pytest
from tui_steps_support import draft, gemma, home, know, step_of, without_q4f16
from tui_support import screen_text, settled, until, wizard_at, words

from engine import choices
from engine.plan import BUILTIN_DEMO, ExportPlan
from tui.draft import Draft
from tui.widgets.advice_box import AdviceItem
from tui.widgets.choice_list import ChoiceList

__all__ = ["home", "without_q4f16"]


async def test_four_bits_below_a_billion_warn_and_never_block() -> None:
    app = wizard_at("quantize", gemma())
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        assert "Few bits below" not in screen_text(app)  # the model is not known yet
        await know(pilot)
        assert "Few bits below 1 B parameters" in screen_text(app)
        assert "150,885,632" in screen_text(app)
        await pilot.press("enter")
        await settled(pilot)
        assert step_of(app) == "context"
        assert app.draft.plan().quantization == "q4f16_1"


async def test_the_better_choice_is_one_key_away_and_can_be_taken_back() -> None:
    app = wizard_at("quantize", gemma())
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await know(pilot)
        await pilot.press("u")
        await settled(pilot)
        assert app.draft.plan().quantization == "q0f16"
        assert "Few bits below" not in screen_text(app)
        assert app.screen.query_one(ChoiceList).looked_at == "q4f16_1"  # the cursor is the person's
        await pilot.press("up", "down")
        await settled(pilot)
        assert app.draft.plan().quantization == "q4f16_1"
        assert "Few bits below" in screen_text(app)


async def test_moving_chooses_and_the_plan_follows() -> None:
    app = wizard_at("quantize", draft())
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        seen = []
        for key in ("k", "k", "k", "j"):
            await pilot.press(key)
            await settled(pilot)
            seen.append(app.draft.plan().quantization)
        assert seen == ["q4f16_1", "q0f32", "q0f16", "q0f32"]
        sizes = choices.quantization_choices(app.draft.plan(), app.draft.facts)[1].sizes
        assert sizes is not None
        assert f"{sizes.disk_bytes:,}" in screen_text(app)


async def test_a_click_chooses_and_stays() -> None:
    app = wizard_at("quantize", draft())
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        await pilot.click(ChoiceList, offset=(8, 2))
        await settled(pilot)
        assert app.draft.plan().quantization == "q0f16"
        assert step_of(app) == "quantize"


async def test_advice_can_be_clicked_and_reached_with_tab() -> None:
    app = wizard_at("quantize", gemma())
    async with app.run_test(size=(110, 44)) as pilot:
        await settled(pilot)
        await know(pilot)
        await pilot.press("tab", "tab")
        assert isinstance(app.focused, AdviceItem)
        assert app.focused.advice.code == "shader-f16"
        await pilot.press("enter")
        await settled(pilot)
        assert app.draft.plan().quantization == "q4f32_1"
        assert isinstance(app.focused, AdviceItem)  # the next piece
        await pilot.click(AdviceItem)
        await settled(pilot)
        assert app.draft.plan().quantization == "q0f32"
        assert isinstance(app.focused, AdviceItem)
        assert app.focused.advice.code == "buffer-not-portable"


@pytest.mark.usefixtures("without_q4f16")
async def test_a_refused_quantization_says_why_and_is_not_taken() -> None:
    app = wizard_at("quantize", draft())
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        await pilot.press("up")
        await settled(pilot)
        assert app.screen.query_one(ChoiceList).looked_at == "q4f16_1"
        assert "This backend has no q4f16_1. It is a test." in screen_text(app)
        await pilot.press("enter")
        await settled(pilot)
        assert (step_of(app), app.draft.plan().quantization) == ("quantize", "q4f32_1")


@pytest.mark.usefixtures("without_q4f16")
async def test_a_preset_that_asks_for_a_refused_one_is_stopped_here() -> None:
    app = wizard_at("quantize", draft(quantization="q4f16_1"))
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        await pilot.press("ctrl+n")
        await settled(pilot)
        assert step_of(app) == "quantize"


async def test_a_low_window_shows_what_is_chosen(wizard_home: Path) -> None:
    app = wizard_at("quantize", Draft.from_plan(ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1")))
    async with app.run_test(size=(40, 12)) as pilot:
        await until(pilot, lambda: "● q4f32_1" in words(app), "the chosen quantization")


async def test_the_plan_in_front_is_closed_and_nothing_is_lost() -> None:
    app = wizard_at("quantize", draft())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("p")
        await settled(pilot)
        assert "Estimate" in screen_text(app)
        await pilot.press("down")
        await settled(pilot)
        assert app.draft.plan().quantization == "q4f32_1", "chosen in a list that nobody sees"
        await pilot.press("escape")
        await settled(pilot)
        assert step_of(app) == "quantize"
        await pilot.press("up")
        await settled(pilot)
        assert app.draft.plan().quantization == "q4f16_1", "the list has no focus"
        await pilot.resize_terminal(110, 32)
        await settled(pilot)
        assert "p Plan" not in screen_text(app)
