"""engine.runner when stages fail, hang or are stopped: stand-in programs for how processes behave."""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from runner_stand_ins import CONFIG, CONVERT, PATIENT, STUBBORN, StandIn
from runner_support import ended, failure, finish, forked, is_ready, outcomes, plan_for

from engine import disk, runner
from engine.errors import StageError, UsageError
from engine.events import Output, Progress


@pytest.fixture
def children() -> Callable[[], list[psutil.Process]]:
    """The processes that a test has started; those of earlier tests, such as a browser, do not count."""
    older = set(psutil.Process().children())

    def started() -> list[psutil.Process]:
        mine = [child for child in psutil.Process().children() if child not in older]
        return mine + [below for child in mine for below in child.children(recursive=True)]

    return started


def test_fewer_shards_leave_no_stale_ones(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path, quantization="q0f16")
    assert ended(finish(plan, backend=stand_in(shards=5))).exit_code == 0
    assert len(list(plan.output.glob("params_shard_*.bin"))) == 5
    less = dataclasses.replace(plan, quantization="q4f16_1")
    assert ended(finish(less, backend=stand_in(shards=2))).exit_code == 0
    assert len(list(plan.output.glob("params_shard_*.bin"))) == 2


@pytest.mark.parametrize(
    ("code", "what", "why", "exit_code"),
    [
        ("sys.exit(3)", "gen_config failed with exit code 3.", "It printed nothing.", 1),
        ("print('last words'); sys.exit(1)", "gen_config failed with exit code 1.", "last words", 1),
        ("1 / 0", "gen_config failed with exit code 1.", "ZeroDivisionError", 1),
        ("pass", "gen_config ended without an error but wrote no file.", "", 1),
        (
            "import os; os.write(1, bytes(range(256)) * 999); sys.exit(5)",
            "gen_config failed with exit code 5.",
            "Its last line",
            1,
        ),
        (
            'print(\'\\x1e{"error": {"what": "No token.", "why": "w", "remedy": "r", "exit_code": 4}}\')\n'
            "sys.exit(4)",
            "No token.",
            "w",
            4,
        ),
    ],
)
def test_a_stage_that_fails(
    tmp_path: Path,
    stand_in: Callable[..., StandIn],
    code: str,
    what: str,
    why: str,
    exit_code: int,
) -> None:
    plan = plan_for(tmp_path)
    broken = stand_in(gen_config=code)
    events = finish(plan, backend=broken)
    told = failure(events)
    assert told.what == what
    assert why in told.why
    assert told.remedy
    assert ended(events).exit_code == exit_code
    assert not list((plan.output / ".mlc-wizard").glob("*.partial"))
    assert not (plan.output / "mlc-chat-config.json").exists()
    assert what in (plan.output / "mlc-wizard.log").read_text()
    mended = finish(plan, backend=stand_in())
    assert outcomes(mended) == {"convert_weight": "skipped", "gen_config": "done", "verify": "done"}
    assert broken.ran() == ["convert_weight", "gen_config", "gen_config"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_stage_that_crashes(tmp_path: Path, stand_in: Callable[..., StandIn], name: str) -> None:
    code = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=code)))
    assert f"was ended by signal {getattr(signal, name).value} ({name})" in told.what
    assert ("memory" in told.why) == (name == "SIGKILL")


def test_a_burst_of_lines_is_in_the_log_whole(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    code = "for i in range(200_000): print('line', i)\n" + CONFIG
    events = finish(plan_for(tmp_path), backend=stand_in(gen_config=code))
    assert ended(events).exit_code == 0
    lines = [line for e in events if isinstance(e, Output) and e.stage == "gen_config" for line in e.lines]
    assert lines == [f"line {i}" for i in range(200_000)]
    log = (tmp_path / "out" / "mlc-wizard.log").read_text().splitlines()
    assert sum("gen_config: line " in line for line in log) == 200_000


def test_records_that_make_no_sense_are_left_out(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    code = """
import json
for body in ({"done": "x"}, {"done": 1, "total": [], "unit": "u"}, {}, {"done": 2, "total": 4, "unit": "u"}):
    print("\\x1e" + json.dumps({"progress": body}), flush=True)
print("\\x1e" + json.dumps({"check": {"name": "forged", "passed": True}}))
"""
    events = finish(plan_for(tmp_path), backend=stand_in(convert_weight=code + CONVERT))
    progress = [e for e in events if isinstance(e, Progress) and e.stage == "convert_weight"]
    assert progress == [Progress(stage="convert_weight", done=2, total=4, unit="u")]
    assert "forged" not in [check.name for check in ended(events).checks]


@pytest.mark.parametrize("code", [PATIENT, STUBBORN], ids=["patient", "stubborn"])
def test_cancel_in_a_stage(
    tmp_path: Path, stand_in: Callable[..., StandIn], children: Callable[[], list[psutil.Process]], code: str
) -> None:
    plan, cancel = plan_for(tmp_path), threading.Event()
    half = "open(sys.argv[1] + '/mlc-chat-config.json', 'w').write('half')\n"
    events = []
    for event in runner.run(plan, cancel, backend=stand_in(gen_config=half + code)):
        events.append(event)
        if is_ready(event):
            cancel.set()
    assert failure(events).outcome == "cancelled"
    assert (ended(events).outcome, ended(events).exit_code) == ("cancelled", 130)
    assert not children()
    assert not (plan.output / "mlc-chat-config.json").exists()
    assert not list((plan.output / ".mlc-wizard").glob("*.partial"))
    assert outcomes(finish(plan, backend=stand_in()))["convert_weight"] == "skipped"


def test_cancel_before_anything(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    cancel = threading.Event()
    cancel.set()
    events = list(runner.run(plan_for(tmp_path), cancel, backend=stand_in()))
    assert ended(events).exit_code == 130
    assert stand_in().ran() == []


def test_closing_the_generator_leaves_nothing_and_frees_the_folder(
    tmp_path: Path, stand_in: Callable[..., StandIn], children: Callable[[], list[psutil.Process]]
) -> None:
    plan = plan_for(tmp_path)
    with contextlib.closing(
        runner.run(plan, threading.Event(), backend=stand_in(convert_weight=PATIENT))
    ) as events:
        next(event for event in events if is_ready(event))
        assert children()
    assert not children()
    assert ended(finish(plan, backend=stand_in())).exit_code == 0


def test_two_runs_on_one_folder(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path)
    with contextlib.closing(
        runner.run(plan, threading.Event(), backend=stand_in(gen_config=PATIENT))
    ) as first:
        next(event for event in first if is_ready(event))
        with pytest.raises(UsageError, match="Another run is working in"):
            finish(plan, backend=stand_in())
        if hasattr(os, "fork"):
            assert forked(lambda: finish(plan, backend=stand_in())) != 0
        finish(dataclasses.replace(plan, output=tmp_path / "other"), backend=stand_in())
    assert ended(finish(plan, backend=stand_in())).exit_code == 0


needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")


@needs_full_device
def test_no_space_for_a_stage(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    """A real ENOSPC from the kernel."""
    code = "open('/dev/full', 'w').write('x' * 100_000)"
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=code)))
    assert told.what.startswith("No space left on the disk that holds ")
    assert told.fix == "output"


@needs_full_device
def test_no_space_for_the_log(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlc-wizard.log").symlink_to("/dev/full")
    with pytest.raises(StageError, match="No space left on the disk"):
        finish(plan_for(tmp_path), backend=stand_in())


@needs_full_device
def test_no_space_for_the_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("before")
    (tmp_path / "state.json.tmp").symlink_to("/dev/full")
    with pytest.raises(StageError, match="No space left on the disk"):
        disk.write_atomically(path, "x" * 100_000)
    assert path.read_text() == "before"
