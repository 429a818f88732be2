"""A headless run that is stopped: ctrl+c once and twice, signals, kill -9, a library that crashes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import GOLDEN

from engine import headless, process
from engine.backends.base import StageCommand
from engine.errors import StageError
from engine.run import verification

DRIVER = """
import sys
from pathlib import Path
from engine import headless
from engine.backends import auto
from engine.backends.base import StageCommand
from engine.plan import ExportPlan

class StandIn:
    name = "stand-in"
    def commands(self, plan, folders):
        return (StageCommand(stage="convert_weight", argv=(sys.executable, "-c", sys.argv[3])),)

auto.choose = lambda plan, facts: (StandIn(), "a stand-in")
plan = ExportPlan(source=sys.argv[1], quantization="q0f16", compile=False, output=Path(sys.argv[2]))
sys.exit(headless.run(plan))
"""
PATIENT = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{PATIENT}"
posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@contextlib.contextmanager
def running(folder: Path, stage: str) -> Iterator["tuple[subprocess.Popen[str], list[int]]"]:
    """A headless run whose first stage is ready, and the ids of all that it has started."""
    source = str(GOLDEN / "llama_tied" / "hf")
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER, source, str(folder / "out"), stage],
        env=process.child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    try:
        while "ready" not in (line := run.stderr.readline()) or line.lstrip().startswith("+"):
            assert line
        yield run, [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
    finally:
        run.kill()
        run.communicate()


def all_gone(pids: list[int]) -> None:
    limit = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.02)


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_the_run_in_good_order(tmp_path: Path, name: str) -> None:
    with running(tmp_path, PATIENT) as (run, children):
        assert len(children) == 2
        run.send_signal(getattr(signal, name))
        out, err = run.communicate(timeout=60)
        assert run.returncode == 130
        assert out == ""
        assert "Stopping" in err
        assert "convert_weight cancelled" in err
        assert "Traceback" not in err
        all_gone(children)
    assert not list((tmp_path / "out" / ".mlc-wizard").glob("*.partial"))


@posix
def test_a_second_ctrl_c_leaves_at_once_and_nothing_stays(tmp_path: Path) -> None:
    with running(tmp_path, STUBBORN) as (run, children):
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        while "Stopping" not in run.stderr.readline():
            pass
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 130
        all_gone(children)


@posix
def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, STUBBORN) as (run, children):
        run.kill()
        all_gone(children)


@posix
def test_verify_outlives_a_library_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks run in a child: whatever a library does there, here it is one message."""
    crash = (sys.executable, "-c", "import os; os.abort()")
    monkeypatch.setattr(verification, "verify_command", lambda _: StageCommand(stage="verify", argv=crash))
    with pytest.raises(StageError, match=r"ended by signal 6 \(SIGABRT\)") as caught:
        headless.verify(tmp_path)
    assert caught.value.fix == "fresh"
