"""The log of a run: followed, searched, copied, and stormed."""

import gc
import sys

import pytest
from tui_runs import (
    CONVERTING,
    FAILED,
    FAILING,
    STARTED,
    Begun,
    Clock,
    fed_app,
    feed,
    numbered,
    output,
    taken_in,
    visible,
)
from tui_support import until

from tui.app import WizardApp
from tui.draft import Draft
from tui.messages import EngineEvent
from tui.screens.run import RunScreen
from tui.smooth import smooth
from tui.symbols import CHOSEN, CUT
from tui.widgets.log_lines import LONGEST, LogStore, severity
from tui.widgets.log_view import LogView


async def test_scrolling_up_lets_go_and_end_follows(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.screen.query_one(LogView)
        await feed(pilot, clock, *CONVERTING, output(*numbered(100)))
        assert "line 99" in visible(pilot)
        await pilot.press("up")
        assert not view.following
        await feed(pilot, clock, output(*numbered(100, 100)))
        assert "line 199" not in visible(pilot)
        assert "100 new lines" in visible(pilot)
        await pilot.press("end")
        await pilot.pause()
        assert view.following
        assert "line 199" in visible(pilot)
        await pilot.press("f")
        await feed(pilot, clock, output(*numbered(50, 200)))
        assert "line 249" not in visible(pilot)
        await pilot.press("f")
        await pilot.pause()
        assert "line 249" in visible(pilot)
        await pilot.resize_terminal(90, 40)
        await pilot.pause()
        await pilot.pause()
        assert view.following
        assert "line 249" in visible(pilot)


async def test_find_goes_from_match_to_match_and_sees_new_lines(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.screen.query_one(LogView)
        await feed(
            pilot, clock, *CONVERTING, output(*numbered(300), "Needle one", *numbered(300), "needle two")
        )
        await pilot.press("slash", *"needle")
        await taken_in(pilot, view)
        assert "2 of 2" in visible(pilot)
        await pilot.press("enter")
        assert "1 of 2" in visible(pilot)
        found = []
        for key in ("enter", "down", "up", "enter"):
            assert view.current is not None
            found.append(view.lines[view.current - view.store.first].split()[-1])
            await pilot.press(key)
        assert len(set(found)) == 2
        assert not view.following
        await feed(pilot, clock, output("a third needle"))
        assert "of 3" in visible(pilot)
        await pilot.press("ctrl+u", *"Needle")
        await taken_in(pilot, view)
        assert "1 of 1" in visible(pilot)
        await pilot.press("ctrl+u", *"haystack")
        await taken_in(pilot, view)
        assert "not found" in visible(pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, RunScreen)
        assert view.search is None


async def test_n_goes_on_finding_after_the_field_is_left(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        view = app.screen.query_one(LogView)
        await feed(pilot, clock, *CONVERTING, output(*numbered(40)))
        await pilot.press("slash", *"line 1")
        await taken_in(pilot, view)
        await pilot.press("tab")
        view.focus()
        await pilot.pause()
        before = view.current
        await pilot.press("n")
        assert view.current == before + 1 if before is not None else False
        await pilot.press("N", "N")
        assert view.current != before


async def test_log_only_and_copy(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING, output(*numbered(300)))
        await pilot.press("l")
        assert "Stages" not in visible(pilot)
        await until(pilot, lambda: "Log · convert weights, 41 %" in visible(pilot), "the stage", settle=False)
        await pilot.press("l")
        assert "Stages" in visible(pilot)
        await until(pilot, lambda: "Log · " not in visible(pilot), "the plain frame", settle=False)
        await feed(pilot, clock, *FAILING[len(CONVERTING) :])
        await pilot.press("c")
        assert app.clipboard.startswith(FAILED.what)
        assert "line 299" in app.clipboard
        assert "line 20\n" not in app.clipboard
        await pilot.press("y")
        assert app.clipboard == STARTED.log


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("error: no such file", "error"),
        ("[05:00:27] ERROR compile.py:12: out of memory", "error"),
        ("RuntimeError: boom", "error"),
        ("largest quantization error 0.1, nothing failed", "output"),
        ("/x.py:3: DeprecationWarning: old", "warning"),
        ("Warning: a tie", "warning"),
        ("be warned", "output"),
    ],
)
def test_what_programs_mark_is_marked(line: str, kind: str) -> None:
    assert severity(line) == kind


async def test_text_from_a_child_is_text(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(110, 32)) as pilot:
        odd = ("[red]not markup[/red]", "a\ttab", "日本語の行", "x" * (LONGEST + 3000), "")
        await feed(pilot, clock, *CONVERTING, output(*odd))
        text = visible(pilot)
        assert "[red]not markup[/red]" in text
        assert "日本語の行" in text
        await pilot.press("right", "right")
        await pilot.pause()
        assert app.screen.query_one(LogView).scroll_x > 0
        (long,) = (line for line in app.screen.query_one(LogView).lines if "xxx" in line)
        assert long.endswith("3000 more characters in the log file")


async def test_a_storm_loses_nothing_keeps_the_order_and_leaves_the_keys_working(
    begun: Begun, clock: Clock
) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING)
        view = app.screen.query_one(LogView)
        before = len(view.lines)
        for start in range(0, 100_000, 5_000):
            app.screen.post_message(EngineEvent(output(*numbered(5_000, start))[1]))
        await pilot.press("l")
        assert app.screen.has_class("-log-only")
        await taken_in(pilot, view)
        assert [line.split("  ", 1)[1] for line in view.lines[before:]] == list(numbered(100_000))
        assert "line 99999" in visible(pilot)


async def test_the_oldest_lines_go_first_and_what_is_in_sight_stays(clock: Clock) -> None:
    app = WizardApp(Draft())
    async with app.run_test(size=(80, 24)) as pilot:
        view = LogView(LogStore(), max_lines=1000)
        await app.screen.mount(view)
        view.write(numbered(900))
        await taken_in(pilot, view)
        view.find("line 77")
        await taken_in(pilot, view)
        assert view.matches == [77, *range(770, 780)]
        view.following = False
        view.scroll_to(y=500, animate=False, immediate=True)
        top = view.lines[int(view.scroll_y)]
        view.write(numbered(200, 900))
        await taken_in(pilot, view)
        assert view.lines == list(numbered(1000, 100))
        assert view.store.first == 100
        assert view.matches[0] == 770
        assert view.lines[int(view.scroll_y)] == top


async def test_a_line_that_is_longer_than_the_window_says_so_and_can_be_read(
    begun: Begun, clock: Clock
) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        long = " ".join(f"word{number}" for number in range(60))
        await feed(pilot, clock, *CONVERTING, output(long, "short"))
        (row,) = (row for row in visible(pilot).splitlines() if "word0" in row)
        assert row.rstrip("│ ▁▂▃▄▅▆▇█").endswith(CHOSEN)
        seen = row
        for _ in range(30):
            await pilot.press("right")
            seen += next((row for row in visible(pilot).splitlines() if "word" in row), "")
        assert all(f"word{number}" in seen for number in range(60))
        assert CUT in visible(pilot)
        assert CHOSEN not in visible(pilot)
        await pilot.press(*["left"] * 30)
        assert "word0" in visible(pilot)
        assert CUT not in visible(pilot)
        await pilot.press("c")
        assert long in app.clipboard


async def test_a_match_far_to_the_right_is_brought_into_sight(begun: Begun, clock: Clock) -> None:
    app = fed_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await feed(pilot, clock, *CONVERTING, output("x" * 500 + " needle " + "y" * 500, "needle here"))
        view = app.screen.query_one(LogView)
        await pilot.press("slash", *"needle")
        await taken_in(pilot, view)
        seen = set()
        for _ in range(2):
            assert "needle" in visible(pilot).split("Log")[-1]
            seen.add(view.scroll_x > 0)
            await pilot.press("enter")
        assert seen == {True, False}


def test_what_keeps_the_screen_smooth_is_given_back() -> None:
    before = gc.get_threshold(), sys.getswitchinterval()
    with smooth():
        with smooth():
            assert gc.get_threshold()[2] > before[0][2]
        assert sys.getswitchinterval() < before[1]
    assert (gc.get_threshold(), sys.getswitchinterval()) == before
