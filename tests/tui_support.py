"""What tests of the screens share: an app to drive, snapshots that do not move, waiting for workers."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, Static

from tui.app import WizardApp
from tui.draft import Draft

SIZES = ((80, 24), (110, 32))
"""Of every snapshot: the smallest terminal that shows all, and a comfortable one."""

at_every_size = pytest.mark.parametrize("size", SIZES, ids=[f"{w}x{h}" for w, h in SIZES])

Prepare = Callable[[Pilot[Any]], Awaitable[None]]


def wizard_at(step: str, draft: Draft | None = None, *, toolchain: bool = False) -> WizardApp:
    """The application, opened at `step` with `draft`, `toolchain` in front of it; nothing on it moves."""
    app = WizardApp(draft, first=step, toolchain=toolchain)
    app.animation_level = "none"
    return app


PATIENCE = 100
"""Seconds for what a test waits for, on a machine that does something else as well."""


async def settled(pilot: Pilot[Any]) -> None:
    """Wait until no worker works and every message was handled."""
    await pilot.pause()
    await pilot.app.workers.wait_for_complete([w for w in pilot.app.workers if not w.is_finished])
    await pilot.pause()


def snap(
    snap_compare: Callable[..., bool], app: WizardApp, size: tuple[int, int], prepare: Prepare | None = None
) -> bool:
    """Whether `app`, settled and then prepared, looks as its snapshot; cursors do not blink."""

    async def run_before(pilot: Pilot[Any]) -> None:
        await settled(pilot)
        if prepare is not None:
            await prepare(pilot)
            await settled(pilot)
        for field in app.screen.query(Input):
            field.cursor_blink = False
            field._cursor_visible = True
        await pilot.pause()

    return snap_compare(app, terminal_size=size, run_before=run_before)


def screen_text(app: App[Any]) -> str:
    """What is on the screen, line by line, as text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def words(app: App[Any]) -> str:
    """What is on the screen, in one line without the frames: wherever it breaks, a sentence is found."""
    return " ".join(screen_text(app).translate(str.maketrans(dict.fromkeys("│╭╮╰╯─", " "))).split())


def colours(app: App[Any]) -> set[tuple[int, int, int]]:
    """Every colour on the screen that is no shade of grey."""
    found = set()
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            for colour in (segment.style.color, segment.style.bgcolor) if segment.style else ():
                if colour is not None and len(set(triplet := tuple(colour.get_truecolor()))) > 1:
                    found.add(triplet)
    return found


def told(app: App[Any], selector: str) -> str:
    """What the Static `selector` says, wherever it breaks on the screen; "" while it is hidden."""
    found = app.screen.query_one(selector, Static)
    return str(found.content) if found.display else ""


async def until(pilot: Pilot[Any], condition: Callable[[], bool], what: str, *, settle: bool = True) -> None:
    """Wait for what a worker brings about; fail with the screen where it does not come or the app is gone.

    `settle` waits for all workers afterwards; a run under way is one that does not end.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline or pilot.app._exception is not None or not pilot.app.is_running:
            pytest.fail(f"Waited in vain for {what}. The screen:\n{screen_text(pilot.app)}")
        await pilot.pause(0.05)
    await (settled(pilot) if settle else pilot.pause())
