"""Exports through the docker backend, by the real runner; containers are processes (docker_stand_in)."""

import dataclasses
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import docker_stand_in
import official_support
import psutil
import pytest
from docker_support import Install, docker
from runner_stand_ins import PATIENT, STUBBORN
from runner_support import GEMMA, ended, failure, finish, is_ready, outcomes, plan_for, visible

from engine import runner
from engine.backends import auto
from engine.backends.docker import inspection, official
from engine.backends.official import probe
from engine.errors import ToolchainError
from engine.events import Event, Output, Progress, RunStarted
from engine.plan import BUILTIN_DEMO, ExportPlan

__all__ = ["docker"]

HOST = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def plan_in_docker(folder: Path, **changes: object) -> ExportPlan:
    return plan_for(folder, **{"backend": "docker", **changes})


def containers(folder: Path) -> list[psutil.Process]:
    """The processes of the containers that are running."""
    found = []
    for record in (folder / "containers").iterdir():
        try:
            root = psutil.Process(int(record.read_text() or 0))
            found += [root, *root.children(recursive=True)]
        except (psutil.NoSuchProcess, OSError):
            continue
    return found


def see_them_end(processes: list[psutil.Process]) -> None:
    limit = time.monotonic() + 60
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
        assert time.monotonic() < limit
        time.sleep(0.05)


def runs(folder: Path) -> list[str]:
    """The stages that containers were started for."""
    names = [call[call.index("--name") + 1] for call in docker_stand_in.calls(folder) if call[0] == "run"]
    return [name.rpartition("-")[2] for name in names]


def said(events: list[Event]) -> list[str]:
    return [line for event in events if isinstance(event, Output) for line in event.lines]


# --- exports -------------------------------------------------------------------------------------


def test_an_export_in_containers_is_that_of_the_embedded_backend(tmp_path: Path, docker: Install) -> None:
    folder = docker()
    source = tmp_path / "with a space"
    shutil.copytree(GEMMA / "hf", source)
    plan = plan_in_docker(tmp_path, source=str(source), output=tmp_path / "in docker")
    events = finish(plan)
    assert ended(events).exit_code == 0
    begun = next(event for event in events if isinstance(event, RunStarted))
    assert begun.backend == (
        "docker backend: the plan names it; in containers of mlc-compiler, Docker 28.3.2."
    )
    assert runs(folder) == ["convert_weight", "gen_config"]
    own = plan_for(tmp_path, source=str(source), output=tmp_path / "here")
    finish(own)
    assert visible(plan.output) == visible(own.output)
    # What a container says has the paths of this machine, and its progress is progress.
    assert any(str(plan.output) in line for line in said(events))
    assert not any("/mlc/" in line for line in said(events))
    assert any(isinstance(event, Progress) and event.total for event in events)


def test_the_demo_with_its_library_completes_and_resumes(tmp_path: Path, docker: Install) -> None:
    folder = docker(image={"Architecture": HOST}, info={"Architecture": platform.machine()})
    changes = {"source": BUILTIN_DEMO, "quantization": "q4f32_1", "compile": True}
    plan = plan_in_docker(tmp_path, device="webgpu", **changes)
    assert ended(finish(plan)).exit_code == 0
    assert (plan.output / "model-webgpu.wasm").stat().st_size > 1 << 20
    stages = ["convert_weight", "gen_config", "compile"]
    assert runs(folder) == stages
    assert outcomes(finish(plan)) == {**dict.fromkeys(stages, "skipped"), "verify": "done"}
    assert runs(folder) == stages
    docker_stand_in.install(folder, image={"Architecture": HOST, "Id": "sha256:built-again"})
    inspection.forget()
    assert outcomes(finish(plan_in_docker(tmp_path, **{**changes, "compile": False})))["gen_config"] == "done"
    assert runs(folder) == [*stages, "convert_weight", "gen_config"]
    receipt = json.loads((plan.output / "export-receipt.json").read_text())
    assert receipt["backend"] == "docker"


def test_an_export_by_the_mlc_llm_of_the_image(tmp_path: Path, docker: Install) -> None:
    """For a target that the embedded compiler lacks; weights and configuration are looked at, too."""
    python = official_support.mlc_llm(tmp_path / "environment")
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    folder = docker(
        image={
            "Id": f"sha256:{tmp_path}",
            "Architecture": HOST,
            "Config": {
                "Labels": {
                    "org.opencontainers.image.version": "0.1.0",
                    "mlc-wizard.mlc-llm": "mlc-llm-nightly-cpu",
                }
            },
        },
        info={"Architecture": platform.machine()},
        programs={official.PYTHON: str(python), official.PROBE: probe.__file__},
        environment={"STAND_IN_PYTHON": sys.executable, "STAND_IN_PATH": os.pathsep.join(paths)},
    )
    plan = plan_in_docker(tmp_path, device="vulkan", compile=True)
    events = finish(plan)
    begun = next(event for event in events if isinstance(event, RunStarted))
    assert begun.backend.endswith(", by its mlc_llm 0.20.dev321.")
    assert runs(folder)[1:] == ["convert_weight", "gen_config", "compile"]
    assert ended(events).exit_code == 0, failure(events)
    receipt = json.loads((plan.output / "export-receipt.json").read_text())
    assert (receipt["backend"], receipt["compiler"]) == ("docker", "mlc_llm")
    assert receipt["versions_of_backend"]["mlc-compiler"] == f"sha256:{tmp_path}"
    assert outcomes(finish(plan))["compile"] == "skipped"


def test_a_container_of_a_lost_run_is_removed_first(tmp_path: Path, docker: Install) -> None:
    folder = docker()
    plan = plan_in_docker(tmp_path)
    finish(plan)
    (name,) = {call[2] for call in docker_stand_in.calls(folder) if call[0] == "rm" and "gen_" in call[2]}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (folder / "containers" / name).write_text(str(left.pid))
    assert ended(finish(plan, fresh=True)).exit_code == 0
    assert left.wait() == -signal.SIGKILL


def test_auto_takes_containers_where_the_compiler_cannot_be_installed(
    tmp_path: Path, docker: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an Intel Mac: TVM is not there."""
    docker()
    monkeypatch.setitem(sys.modules, "tvm", None)
    plan = plan_for(tmp_path, compile=True)
    backend, reason = auto.choose(plan, None)
    assert backend.name == "docker"
    assert reason.startswith("docker backend: Compiling needs apache-tvm, which is not installed here. ")
    assert reason.endswith("in containers of mlc-compiler, Docker 28.3.2.")
    assert auto.choose(dataclasses.replace(plan, compile=False), None)[0].name == "embedded"
    docker(image=None)
    with pytest.raises(ToolchainError, match="apache-tvm"):
        auto.choose(plan, None)


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "what", "remedy"),
    [
        (
            {"image": None},
            "has no image mlc-compiler",
            "docker build -t mlc-compiler -f docker/Dockerfile.mlc .",
        ),
        ({"fails": {"info": [1, docker_stand_in.DOWN]}}, "daemon does not answer", "Start Docker"),
        ({"image": {"Config": {"Labels": {}}}}, "not of this version", "docker build"),
    ],
)
def test_refused_before_any_work(
    tmp_path: Path, docker: Install, behaviour: dict[str, object], what: str, remedy: str
) -> None:
    docker(**behaviour)
    plan = plan_in_docker(tmp_path)
    with pytest.raises(ToolchainError) as caught:
        finish(plan)
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert not plan.output.exists()


DIED = "error waiting for container: unexpected EOF"
FULL = "docker: Error response from daemon: write /var/lib/docker/tmp/x: no space left on device."
DENIED = "docker: Error response from daemon: Mounts denied: "
NO_PROGRAM = (
    "docker: Error response from daemon: failed to create task for container: OCI runtime create failed: "
    'runc create failed: unable to start container process: exec: "python": executable file not found in '
    "$PATH: unknown."
)


@pytest.mark.parametrize(
    ("dies", "what", "exit_code"),
    [
        ([125, DIED], "Docker's daemon went away while the container ran.", 1),
        ([125, FULL], "Docker's own disk is full.", 1),
        ([125, DENIED], "Docker cannot mount a folder of this machine.", 2),
        ([127, NO_PROGRAM], "The image is not the one that mlc-wizard's Dockerfile makes.", 3),
        ([125, docker_stand_in.DOWN], "Docker's daemon does not answer.", 3),
        ([137, ""], "The system ended the process, because memory ran out.", 1),
    ],
)
def test_what_ends_a_container_is_explained_and_finished_stages_are_kept(
    tmp_path: Path, docker: Install, dies: list[object], what: str, exit_code: int
) -> None:
    folder = docker(dies={"gen_config": dies})
    plan = plan_in_docker(tmp_path)
    events = finish(plan)
    assert ended(events).exit_code == exit_code
    told = failure(events)
    assert (told.stage, told.what) == ("gen_config", f"gen_config failed: {what}")
    assert told.remedy
    assert (plan.output / "params_shard_0.bin").is_file()
    docker_stand_in.install(folder)
    inspection.forget()
    found = outcomes(finish(plan))
    assert found == {"convert_weight": "skipped", "gen_config": "done", "verify": "done"}


def test_a_daemon_that_is_gone_between_stages(tmp_path: Path, docker: Install) -> None:
    """Its end is met by the next stage, in its own words."""
    folder = docker()
    plan = plan_in_docker(tmp_path)
    events = []
    for event in runner.run(plan, threading.Event()):
        events.append(event)
        if outcomes(events) == {"convert_weight": "done"}:
            docker_stand_in.install(folder, fails={"run": [125, f"docker: {docker_stand_in.DOWN}"]})
    assert failure(events).what == "gen_config failed: Docker's daemon does not answer."
    assert outcomes(events) == {"convert_weight": "done", "gen_config": "failed"}


def test_a_daemon_that_sees_other_files(tmp_path: Path, docker: Install) -> None:
    """As one on another machine: what is mounted is empty."""
    empty = tmp_path / "empty"
    empty.mkdir()
    docker(mounts_instead=str(empty))
    told = failure(finish(plan_in_docker(tmp_path)))
    assert "sees an empty folder at " in told.what
    assert "DOCKER_HOST" in told.why


def test_what_a_stage_says_of_its_failure_comes_through(tmp_path: Path, docker: Install) -> None:
    docker()
    source = tmp_path / "model"
    shutil.copytree(GEMMA / "hf", source)
    plan = plan_in_docker(tmp_path, source=str(source))
    events = []
    for event in runner.run(plan, threading.Event()):
        events.append(event)
        if isinstance(event, RunStarted):
            (source / "tokenizer.json").write_text("{")
    told = failure(events)
    assert told.stage == "gen_config"
    assert str(source / "tokenizer.json") in told.what
    assert "/mlc/" not in f"{told.what} {told.why} {told.remedy}"


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [PATIENT, STUBBORN], ids=["patient", "stubborn"])
def test_cancel_ends_the_container(tmp_path: Path, docker: Install, code: str) -> None:
    folder = docker(instead={"gen_config": code})
    cancel = threading.Event()
    events, processes = [], []
    for event in runner.run(plan_in_docker(tmp_path), cancel):
        events.append(event)
        if is_ready(event) and not cancel.is_set():
            processes = containers(folder)
            cancel.set()
    assert ended(events).exit_code == 130
    assert outcomes(events) == {"convert_weight": "done", "gen_config": "cancelled"}
    assert len(processes) == 2
    see_them_end(processes)
    assert not list((folder / "containers").iterdir())


WORK = """
import sys, threading
from pathlib import Path
from runner_support import plan_for
from engine import runner
from engine.backends import auto
for event in runner.run(plan_for(Path(sys.argv[1]), backend="docker"), threading.Event()):
    print(event, flush=True)
"""


@pytest.mark.parametrize("everything", [False, True], ids=["front end", "all on this side"])
@pytest.mark.parametrize("code", [PATIENT, STUBBORN], ids=["patient", "stubborn"])
def test_kill_9_leaves_no_container(tmp_path: Path, docker: Install, code: str, everything: bool) -> None:
    """Of the front end alone, or with supervisor, client and all: then only the closed pipe is left."""
    folder = docker(instead={"convert_weight": code})
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    front_end = subprocess.Popen(
        [sys.executable, "-P", "-c", WORK, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *paths])},
    )
    assert front_end.stdout is not None
    assert any("ready" in line for line in front_end.stdout)
    processes = containers(folder)
    assert len(processes) == 2
    victims = [psutil.Process(front_end.pid)]
    if everything:
        inside = {process.pid for process in processes}
        victims += [p for p in victims[0].children(recursive=True) if p.pid not in inside]
    for victim in victims:
        victim.kill()
    front_end.wait()
    see_them_end(processes)


def test_the_model_may_be_one_that_nobody_can_write(tmp_path: Path, docker: Install) -> None:
    """The stand-in fails a container that changed what is mounted read-only."""
    docker()
    source = tmp_path / "model"
    shutil.copytree(GEMMA / "hf", source)
    for path in [*source.iterdir(), source]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert ended(finish(plan_in_docker(tmp_path, source=str(source)))).exit_code == 0
    finally:
        source.chmod(0o755)
