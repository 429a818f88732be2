"""Quantize, Context, Target and Review, driven as a person drives them."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN
from native_libraries import program
from published_models import GEMMA
from textual.pilot import Pilot
from textual.widgets import Input
from tui_support import SIZES, at_every_size, screen_text, settled, snap, told, until, wizard_at, words

from engine import choices
from engine.backends.base import shell_line
from engine.errors import UsageError, WizardError
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, ExportPlan
from engine.run.job import prepare
from tui.app import WizardApp
from tui.draft import Draft
from tui.screens import quantize
from tui.screens.review import Reviewed, ReviewScreen
from tui.widgets.advice_box import AdviceItem
from tui.widgets.choice_list import ChoiceList

STEPS = ("quantize", "context", "target", "review")
Snap = Callable[..., bool]


@pytest.fixture(autouse=True)
def home(wizard_home: Path) -> Path:
    return wizard_home


def draft(**changes: Any) -> Draft:
    """A draft that has come as far as the review, of the demo model unless `source` says otherwise."""
    found = Draft.from_plan(
        ExportPlan(**({"source": BUILTIN_DEMO, "quantization": "q4f32_1", "output": Path("out")} | changes))
    )
    found.done |= {"review"}
    return found


def gemma(**changes: Any) -> Draft:
    """A draft of a model on the Hub; its facts come with `know`, as if it were in the Hub's cache."""
    return draft(**({"source": "google/gemma-3-270m-it", "quantization": "q4f16_1"} | changes))


async def know(pilot: Pilot[Any], facts: ModelFacts = GEMMA) -> None:
    """The facts of the draft's model have been read."""
    app = pilot.app
    assert isinstance(app, WizardApp)
    app.draft.facts = facts
    app.show_draft()
    await settled(pilot)


def step_of(app: WizardApp) -> str:
    return str(getattr(app.screen, "STEP", ""))


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


@pytest.fixture
def without_q4f16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that has no q4f16_1."""

    def refuse(plan: ExportPlan, facts: ModelFacts | None) -> WizardError | None:
        absent = plan.quantization == "q4f16_1"
        return UsageError("This backend has no q4f16_1.", why="It is a test.") if absent else None

    offered = partial(choices.quantization_choices, refuse=refuse)
    monkeypatch.setattr(quantize, "quantization_choices", offered)


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


async def test_the_kv_cache_follows_every_digit() -> None:
    app = wizard_at("context", gemma(context_window_size=4096))
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await know(pilot)
        seen = []
        for key in ("backspace", "8", "1", "9", "2"):
            await pilot.press(key)
            await settled(pilot)
            costs = screen_text(app).split("KV cache")[1].split("a token")[0]
            seen.append(" ".join(costs.split()[:2]))
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
        assert told(app, "#window") == "24 tokens in 2 of 2 layers, kept as the model was trained."
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


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's compiler, as far as looking for it goes."""
    program(tmp_path / "cuda", "nvcc", "")
    monkeypatch.setenv("PATH", str(tmp_path / "cuda"), prepend=os.pathsep)


@pytest.mark.usefixtures("nvcc")
async def test_every_target_can_be_had_and_the_wish_for_a_library_is_kept() -> None:
    app = wizard_at("target", draft())
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        seen = {}
        for _ in range(8):
            plan = app.draft.plan()
            seen[plan.device] = plan.compile
            if not plan.compile:
                assert f"does not compile for {plan.device}" in screen_text(app)
            await pilot.press("down")
            await settled(pilot)
        assert seen == dict.fromkeys(choices.TARGETS, True) | {"vulkan": False}
        assert app.draft.plan().device == "webgpu"  # round and back
        assert app.draft.plan().compile
        await pilot.press("enter")
        await settled(pilot)
        assert step_of(app) == "review"


async def test_weights_only_is_a_choice_of_its_own() -> None:
    app = wizard_at("target", draft())
    async with app.run_test(size=(110, 60)) as pilot:
        await settled(pilot)
        await pilot.press("tab", "down")
        await settled(pilot)
        assert (app.draft.plan().device, app.draft.plan().compile) == ("webgpu", False)
        await pilot.press("shift+tab", "down")
        await settled(pilot)
        assert (app.draft.plan().device, app.draft.plan().compile) == ("cpu", False)
        await pilot.press("enter")
        await settled(pilot)
        await until(pilot, lambda: "convert_weight" in words(app), "the commands")
        assert "engine.embedded compile" not in words(app)


async def test_a_machine_without_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tvm" else original(name, *rest)
    )
    app = wizard_at("target", draft())
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        assert "Compiling needs apache-tvm" in screen_text(app)
        await pilot.press("ctrl+n")
        await settled(pilot)
        assert step_of(app) == "target"
        await pilot.press("tab", "down", "enter")
        await settled(pilot)
        assert step_of(app) == "review"
        assert not app.draft.plan().compile


async def test_the_review_shows_and_copies_the_very_commands() -> None:
    app = wizard_at("review", draft())
    async with app.run_test(size=(400, 60)) as pilot:
        await settled(pilot)
        expected = [shell_line(c.argv) for c in prepare(app.draft.plan()).commands()]
        for line in expected:
            assert line in screen_text(app)
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


@pytest.mark.parametrize("step", STEPS)
async def test_any_size_will_do(step: str) -> None:
    app = wizard_at(step, gemma())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await know(pilot)
        for width, height in ((40, 12), (20, 6), (200, 60), (99, 24)):
            await pilot.resize_terminal(width, height)
            await settled(pilot)
            assert step_of(app) == step
            await pilot.press("p", "pagedown", "p")


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "110x32"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("nvcc")
def test_looks(snap_compare: Snap, monkeypatch: pytest.MonkeyPatch, step: str, size: tuple[int, int]) -> None:
    commands = tuple(
        f"python -P -m engine.embedded {stage} ..." for stage in ("convert_weight", "gen_config")
    )
    app = wizard_at(step, gemma())

    async def prepared(pilot: Pilot[Any]) -> None:
        await know(pilot)
        if isinstance(app.screen, ReviewScreen):
            found = app.screen._found
            assert found is not None
            app.screen.post_message(replace(found, commands=commands))  # paths are of this machine

    assert snap(snap_compare, app, size, prepared)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "110x32"])
@pytest.mark.parametrize(
    ("step", "keys"),
    [
        ("context", ("tab", "9", "9", "9", "9")),
        ("target", ("down", "down", "down", "down")),
        ("quantize", ("up",)),
    ],
    ids=["prefill-too-long", "weights-only", "refused"],
)
@pytest.mark.usefixtures("without_q4f16", "nvcc")
def test_looks_of_what_cannot_be(
    snap_compare: Snap, step: str, keys: tuple[str, ...], size: tuple[int, int]
) -> None:
    async def prepared(pilot: Pilot[Any]) -> None:
        await know(pilot)
        await pilot.press(*keys)

    assert snap(snap_compare, wizard_at(step, gemma(quantization="q4f32_1")), size, prepared)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "110x32"])
def test_looks_of_a_folder_that_is_somebody_elses(
    snap_compare: Snap, home: Path, size: tuple[int, int]
) -> None:
    (home / "out").mkdir()
    (home / "out" / "params_shard_0.bin").write_bytes(b"")
    app = wizard_at("review", draft())

    async def prepared(pilot: Pilot[Any]) -> None:
        assert isinstance(app.screen, ReviewScreen)
        found = app.screen._found
        assert found is not None
        assert isinstance(found.error, UsageError)
        error = UsageError(
            found.error.what.replace(str(home), "/home/me"), why=found.error.why, remedy=found.error.remedy
        )
        app.screen.post_message(replace(found, error=error))

    assert snap(snap_compare, app, size, prepared)


async def test_the_commands_are_one_key_away_where_they_are_below_the_edge(wizard_home: Path) -> None:
    app = wizard_at("review", Draft.from_plan(ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1")))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "engine.embedded" not in words(app)
        await pilot.press("c")
        await until(pilot, lambda: "engine.embedded convert_weight" in words(app), "the commands")
        assert len(app.clipboard.splitlines()) == 4


async def test_a_low_window_shows_what_is_chosen(wizard_home: Path) -> None:
    app = wizard_at("quantize", Draft.from_plan(ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1")))
    async with app.run_test(size=(40, 12)) as pilot:
        await until(pilot, lambda: "● q4f32_1" in words(app), "the chosen quantization")
