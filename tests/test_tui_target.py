"""The step Target, driven as a person drives it."""

import importlib.util

import pytest
from tui_steps_support import draft, home, nvcc, step_of
from tui_support import screen_text, settled, until, wizard_at, words

from engine import choices

__all__ = ["home", "nvcc"]


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
