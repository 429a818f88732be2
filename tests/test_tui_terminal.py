"""The run in a real terminal: resized, interrupted and closed; test_tui_flow.py kills it."""

import os
from pathlib import Path

import psutil
import pytest
from real_terminal import Terminal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo terminals and signals")

CTRL_C, CTRL_Q, DOWN = "\x03", "\x11", "\x1b[B"
GONE_SECONDS = 60
"""For a child to be gone: the grace that it has is three, the rest is for a busy machine."""


def compiling(folder: Path) -> tuple[Terminal, list[psutil.Process]]:
    """A run of the demo preset that has come to its compilation, and the processes at work."""
    terminal = Terminal(folder)
    terminal.wait_for("gemma270m")
    terminal.send(DOWN)
    terminal.wait_for("no download, a minute")
    terminal.send("r")
    terminal.wait_for("● compile library")
    workers = psutil.Process(terminal.pid).children(recursive=True)
    assert workers
    return terminal, workers


def left_of(workers: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(workers, timeout=GONE_SECONDS)[1]


def test_a_run_survives_every_size_of_its_window(tmp_path: Path) -> None:
    terminal, workers = compiling(tmp_path)
    for worker in workers:  # the run stands still, or it may be over before the last size
        worker.suspend()
    for columns, rows, part in (
        (40, 12, "Log"),
        (20, 6, "Log"),
        (200, 50, "Plan"),
        (80, 24, "verify export"),
    ):
        terminal.resize(columns, rows)
        terminal.wait_for(part)
    for worker in workers:
        worker.resume()
    terminal.wait_for("Exported in")
    terminal.resize(80, 40)  # with a long path the checks lie below 24 rows
    terminal.wait_for("checks passed")
    assert (tmp_path / "mlc-demo" / "export-receipt.json").is_file()
    assert terminal.leave(CTRL_Q) == 0


def test_ctrl_c_asks_and_then_leaves_nothing_behind(tmp_path: Path) -> None:
    terminal, workers = compiling(tmp_path)
    terminal.send(CTRL_C)
    terminal.wait_for("Stop the run and leave?")
    terminal.send("n")
    terminal.wait_for("x Stop")
    terminal.send(CTRL_C)
    terminal.wait_for("Stop the run and leave?")
    assert terminal.leave("y") == 0
    assert not left_of(workers)
    assert not list((tmp_path / "mlc-demo" / ".mlc-wizard").glob("*.partial"))
    assert (tmp_path / "mlc-demo" / "params_shard_0.bin").is_file()


def test_a_window_that_is_closed_takes_the_run_with_it(tmp_path: Path) -> None:
    terminal, workers = compiling(tmp_path)
    screen = psutil.Process(terminal.pid)
    terminal.hang_up()
    assert not left_of([screen, *workers])
