"""The step Context, driven as a person drives it."""

import re

from conftest import GOLDEN
from published_models import GEMMA
from textual.widgets import Input
from tui_steps_support import draft, gemma, home, know, step_of
from tui_support import at_every_size, screen_text, settled, told, until, wizard_at, words

__all__ = ["home"]


async def test_the_kv_cache_follows_every_digit() -> None:
    app = wizard_at("context", gemma(context_window_size=4096))
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await know(pilot)
        seen = []
        for key in ("backspace", "8", "1", "9", "2"):
            await pilot.press(key)
            await settled(pilot)
            (cost,) = re.findall(r"KV cache +(\S+ \S+) +18.0 KiB a token", screen_text(app))
            seen.append(cost)
        # 18 KiB a token, in pages of 16: 8, 81, 819 and 8192 tokens.
        assert seen[1:] == ["0.3 MiB", "1.7 MiB", "15 MiB", "144 MiB"]
        assert app.draft.plan().context_window_size == 8192


async def test_sizes_that_do_not_fit_are_told_inline_and_survive_the_way_back() -> None:
    app = wizard_at("context", draft(context_window_size=1024, prefill_chunk_size=256))
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await pilot.press("tab", "4", "0", "0", "0")
        await settled(pilot)
        assert "1 to 1,024" in screen_text(app)
        assert app.draft.plan().prefill_chunk_size == 400  # the last that could be
        await pilot.press("ctrl+n")
        await settled(pilot)
        assert step_of(app) == "context"
        await pilot.press("escape")
        await settled(pilot)
        assert step_of(app) == "quantize"
        await pilot.press("enter")
        await settled(pilot)
        assert [field.value for field in app.screen.query(Input)][1] == "4000"
        assert "1 to 1,024" in screen_text(app)
        await pilot.press("4", "0", "0", "0")
        await settled(pilot)
        assert "1 to 1,024" not in screen_text(app)
        assert app.draft.plan().context_window_size == app.draft.plan().prefill_chunk_size == 4000


async def test_arrows_and_clicks_step_through_sizes() -> None:
    app = wizard_at("context", draft(context_window_size=1024, prefill_chunk_size=None))
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await pilot.press("down")
        await settled(pilot)
        assert app.draft.plan().context_window_size == 512
        await pilot.press("up", "up")
        await settled(pilot)
        assert app.draft.plan().context_window_size == 1024
        await pilot.click("#field-prefill_chunk_size SizeSteps", offset=(2, 0))
        await settled(pilot)
        assert app.draft.plan().prefill_chunk_size == 64


async def test_letters_are_keys_of_the_step_and_not_of_the_field() -> None:
    app = wizard_at("context", gemma(context_window_size=99_999))
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await know(pilot)
        assert isinstance(app.focused, Input)
        await pilot.press("u")
        await settled(pilot)
        assert app.draft.plan().context_window_size == GEMMA.max_context
        assert app.focused.value == str(GEMMA.max_context)
        await pilot.press("x", "question_mark")
        await settled(pilot)
        assert step_of(app) != "context"  # help is on top


async def test_an_empty_field_leaves_the_choice_to_the_default() -> None:
    app = wizard_at("context", draft(context_window_size=512))
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await pilot.press("backspace")  # the field is selected when it is entered
        await settled(pilot)
        assert app.draft.plan().context_window_size is None


async def test_a_rolling_cache_that_a_model_cannot_have_is_taken_out() -> None:
    app = wizard_at("context", gemma(sliding_window_size=512))
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await know(pilot)
        assert "does not roll. Leave this empty" in words(app)
        await pilot.press("ctrl+n")
        assert step_of(app) == "context"
        await pilot.press("tab", "tab", "backspace", "enter")
        await settled(pilot)
        assert step_of(app) == "target"
        assert app.draft.plan().sliding_window_size is None


@at_every_size
async def test_a_rolling_cache_takes_the_place_of_the_context(size: tuple[int, int]) -> None:
    app = wizard_at("context", draft(source=str(GOLDEN / "mistral" / "hf")))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.draft.facts is not None, "the facts")
        assert told(app, "#window") == "The latest 24 tokens in 2 of 2 layers, as the model was trained."
        await pilot.press("tab", "tab", *"128")
        await settled(pilot)
        assert "first and the latest tokens" in told(app, "#field-sliding_window_size .told")
        assert told(app, "#window") == ""  # no layer masks where the cache rolls
        assert "takes its place" in told(app, "#field-context_window_size .told")
        assert "1 to 128" in told(app, "#field-prefill_chunk_size .told")
        plan = app.draft.plan()
        assert (plan.sliding_window_size, plan.context_window_size) == (128, None)
        await pilot.press("shift+tab", *"129")
        await settled(pilot)
        assert "longer than the rolling cache: 1 to 128" in told(app, "#field-prefill_chunk_size .told")
        await pilot.press("backspace", "backspace", "backspace", "shift+tab", *"256")
        await settled(pilot)
        assert "empty one of the two" in told(app, "#field-sliding_window_size .told")
