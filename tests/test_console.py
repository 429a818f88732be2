"""engine.console: colours, widths and encodings, and the line that changes."""

import pytest
from console_support import Terminal, plain_environment

from engine import headless
from engine.console import Console, colours_wanted
from engine.events import RunEnded, RunStarted, StageEnded, StageStarted

__all__ = ["plain_environment"]


def tell_a_failed_run(terminal: Terminal) -> str:
    narrator = headless._Narrator(Console(terminal))
    narrator.tell(RunStarted(output="/o", log="/o/l", backend="b", stages=("convert_weight", "verify")))
    narrator.tell(StageStarted(stage="convert_weight", command=("a", "b c")))
    narrator.tell(StageEnded(stage="convert_weight", outcome="failed", seconds=1, what="W", remedy="R"))
    narrator.tell(RunEnded(outcome="failed", exit_code=1, seconds=1, output="/o"))
    return terminal.text()


def test_colours_and_who_wants_none(plain_environment: pytest.MonkeyPatch) -> None:
    assert "\x1b[31m" in tell_a_failed_run(Terminal())
    assert "\x1b" not in tell_a_failed_run(Terminal(tty=False))
    plain_environment.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in tell_a_failed_run(Terminal())
    plain_environment.setenv("FORCE_COLOR", "1")
    assert not colours_wanted(Terminal())
    plain_environment.delenv("NO_COLOR")
    assert colours_wanted(Terminal(tty=False))
    plain_environment.delenv("FORCE_COLOR")
    plain_environment.setenv("TERM", "dumb")
    assert not colours_wanted(Terminal())


def test_ascii_where_nothing_else_can_be_shown(plain_environment: pytest.MonkeyPatch) -> None:
    text = tell_a_failed_run(Terminal("ascii", tty=False))
    assert "FAILED convert_weight failed" in text
    assert "✗ convert_weight failed" in tell_a_failed_run(Terminal(tty=False))
    console = Console(Terminal("latin-1"))
    assert console.good == "ok"


@pytest.mark.parametrize("columns", [1, 10, 40, 80, 300])
def test_any_width(plain_environment: pytest.MonkeyPatch, columns: int) -> None:
    plain_environment.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    console = Console(terminal)
    console.status("x" * 500)
    shown = terminal.text().removeprefix("\r\x1b[K")
    assert len(shown) <= max(columns - 1, 1)
    console.ends("left", "1.00s", "green")
    last = terminal.text().rstrip("\n").split("\n")[-1]
    assert last.endswith("1.00s")
    assert "left" in last
    assert tell_a_failed_run(Terminal())


def test_the_live_line_never_stays(plain_environment: pytest.MonkeyPatch) -> None:
    plain_environment.setenv("NO_COLOR", "1")
    terminal = Terminal()
    console = Console(terminal)
    console.status("10%")
    console.status("20%")
    console.line("said")
    assert terminal.text() == "\r\x1b[K10%\r\x1b[K20%\r\x1b[Ksaid\n"


def test_progress_in_a_pipe_is_a_line_now_and_then(plain_environment: pytest.MonkeyPatch) -> None:
    terminal = Terminal(tty=False)
    console = Console(terminal)
    for i in range(1000):
        console.status(f"{i}%")
    assert terminal.text() == "0%\n"
