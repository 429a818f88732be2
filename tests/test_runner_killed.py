"""engine.runner after kill -9 at every step, and what it mends of a run before it."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from runner_stand_ins import CONFIG, STUBBORN, StandIn
from runner_support import ended, finish, forked, is_ready, outcomes, plan_for, visible

from engine import runner
from engine.artifacts import verify
from engine.errors import StageError
from engine.events import Event, Output, StageEnded
from engine.plan import ExportPlan
from engine.run.workspace import Workspace

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is killed in a forked copy")


class Countdown:
    """Kills this process when a file would be renamed or removed for the `left`th time."""

    def __init__(self, left: int) -> None:
        self.left = left

    def around(self, operation: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return wrapped


def run_until_killed(plan: ExportPlan, backend: StandIn, steps: int) -> int:
    def work() -> None:
        countdown = Countdown(steps)
        for owner, name in ((Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            setattr(owner, name, countdown.around(getattr(owner, name)))
        finish(plan, backend=backend)

    return forked(work)


def until_configured(plan: ExportPlan, backend: StandIn) -> list[Event]:
    """A run without its last stage, which takes longest and changes nothing."""
    events = []
    with contextlib.closing(runner.run(plan, threading.Event(), backend=backend)) as run:
        for event in run:
            events.append(event)
            if isinstance(event, StageEnded) and event.stage == "gen_config":
                break
    return events


def state_of(output: Path) -> dict[str, dict[str, object]]:
    path = output / ".mlc-wizard" / "state.json"
    return dict(json.loads(path.read_text())["stages"]) if path.exists() else {}


@needs_fork
@pytest.mark.parametrize("before", [None, "q0f16"])
def test_killed_at_every_step_the_next_run_finishes_the_job(
    tmp_path: Path, stand_in: Callable[..., StandIn], before: str | None
) -> None:
    """First into an empty folder, then over an export with another quantization and more shards."""
    reference = plan_for(tmp_path, output=tmp_path / "reference")
    finish(reference, backend=stand_in(shards=2))
    prints = {name: state["fingerprint"] for name, state in state_of(reference.output).items()}
    allowed = {(n, d) for n, d in visible(reference.output).items()}
    old = tmp_path / "old"
    if before:
        finish(plan_for(tmp_path, quantization=before, output=old), backend=stand_in(shards=4))
        allowed |= {(n, d) for n, d in visible(old).items()}
    for steps in range(1000):
        output = tmp_path / f"out{steps}"
        if before:
            shutil.copytree(old, output)
        plan = plan_for(tmp_path, output=output)
        code = run_until_killed(plan, stand_in(shards=2), steps)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert set(visible(output).items()) <= allowed
        finished = {n for n, s in state_of(output).items() if s["fingerprint"] == prints[n]}
        manifest = output / "tensor-cache.json"
        if manifest.exists():
            named = [s["dataPath"] for s in json.loads(manifest.read_text())["records"]]
            assert all((output / name).exists() for name in named)
        found = outcomes(until_configured(plan, stand_in(shards=2)))
        assert all(found[name] == "skipped" for name in finished & {"convert_weight", "gen_config"})
        assert visible(output) == visible(reference.output)
        shutil.rmtree(output)
    assert steps > 10


@needs_fork
@pytest.mark.parametrize("stage", ["convert_weight", "gen_config"])
def test_killed_in_a_stage(tmp_path: Path, stand_in: Callable[..., StandIn], stage: str) -> None:
    plan = plan_for(tmp_path)
    pids = tmp_path / "pids"

    def work() -> None:
        for event in runner.run(plan, threading.Event(), backend=stand_in(**{stage: STUBBORN})):
            if is_ready(event):
                children = psutil.Process().children(recursive=True)
                pids.write_text(" ".join(str(child.pid) for child in children))
                os.kill(os.getpid(), signal.SIGKILL)

    assert forked(work) == -signal.SIGKILL
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    limit = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in left):
        assert time.monotonic() < limit
        time.sleep(0.05)
    found = outcomes(finish(plan, backend=stand_in()))
    assert found[stage] == "done"
    assert found["convert_weight"] == ("done" if stage == "convert_weight" else "skipped")


def test_recovery_notices_a_commit_that_lost_a_file(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path)
    finish(plan, backend=stand_in())
    path = plan.output / ".mlc-wizard" / "state.json"
    state = json.loads(path.read_text())
    state["stages"]["gen_config"]["committing"] = True
    path.write_text(json.dumps(state))
    (plan.output / "tokenizer.json").unlink()
    assert outcomes(finish(plan, backend=stand_in())) == {
        "convert_weight": "skipped",
        "gen_config": "done",
        "verify": "done",
    }


def test_a_library_of_an_earlier_run_goes_when_the_plan_has_none(
    tmp_path: Path, stand_in: Callable[..., StandIn]
) -> None:
    plan = plan_for(tmp_path)
    finish(plan, backend=stand_in())
    with Workspace.locked(plan.output, "model-webgpu.wasm") as workspace:
        (workspace.begin("compile") / "model-webgpu.wasm").write_bytes(b"\0asm")
        workspace.commit("compile", "earlier", 1.0)
    assert (plan.output / "model-webgpu.wasm").exists()
    assert ended(finish(plan, backend=stand_in())).exit_code == 0
    assert not (plan.output / "model-webgpu.wasm").exists()


def test_children_do_not_see_the_lock(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    """A process that outlived the run must not keep the folder locked."""
    plan = plan_for(tmp_path)
    code = "import os; print('fds', sorted(os.listdir('/proc/self/fd')))\n"
    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux lists descriptors")
    events = finish(plan, backend=stand_in(gen_config=code + CONFIG))
    (line,) = [li for e in events if isinstance(e, Output) for li in e.lines if li.startswith("fds")]
    assert line == "fds ['0', '1', '2', '3']"  # 3 is the listing itself


def test_cancel_while_files_are_hashed_moves_none(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path)
    finish(plan, backend=stand_in(shards=2))
    before = visible(plan.output)
    other = dataclasses.replace(plan, quantization="q0f16")
    calls = []

    def between() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise StageError("stop")

    with Workspace.locked(plan.output, "model-webgpu.wasm") as workspace:
        folder = workspace.begin("convert_weight")
        for name in ("params_shard_0.bin", "tensor-cache.json"):
            (folder / name).write_text("new")
        with pytest.raises(StageError, match="stop"):
            workspace.commit("convert_weight", "new", 1.0, between=between)
        assert visible(plan.output) == before
    assert ended(finish(other, backend=stand_in())).exit_code == 0


def test_what_a_run_has_left_is_no_export(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    """Whatever its files are like: those of a later stage are the earlier run's."""
    plan, backend = plan_for(tmp_path), stand_in()

    def receipt() -> list[str]:
        return [check.found for check in verify(plan.output) if check.name == "receipt" and not check.passed]

    finish(plan, backend=backend)
    assert receipt() == []
    until_configured(plan, backend)
    assert receipt() == ["there is none: the last run into this folder did not come to its end"]
    finish(plan, backend=backend)
    assert receipt() == []
