"""Quantize, Context, Target and Review: any size of the window, and how they look."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from tui_steps_support import draft, gemma, home, know, nvcc, step_of, without_q4f16
from tui_support import SIZES, settled, snap, wizard_at

from engine.errors import UsageError
from tui.screens.review import ReviewScreen

__all__ = ["home", "nvcc", "without_q4f16"]

STEPS = ("quantize", "context", "target", "review")
Snap = Callable[..., bool]


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
