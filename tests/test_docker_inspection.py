"""engine.backends.docker.inspection: what `docker` says of itself, and how it is told where it fails."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import docker_stand_in
import pytest
from docker_support import Install, docker
from runner_support import plan_for

from engine.backends import auto
from engine.backends.docker import inspection
from engine.backends.docker.inspection import Daemon, Image
from engine.errors import ToolchainError, WizardError

__all__ = ["docker"]

PODMAN = {
    "host": {
        "arch": "arm64",
        "memTotal": 4 << 30,
        "security": {"rootless": True, "selinuxEnabled": True},
        "serviceIsRemote": False,
    },
    "version": {"Version": "4.3.1"},
}


def refused(ask: Callable[[], object]) -> WizardError:
    with pytest.raises(WizardError) as caught:
        ask()
    return caught.value


def test_a_daemon_and_its_image(docker: Install) -> None:
    docker()
    assert inspection.daemon() == Daemon(
        version="28.3.2",
        architecture="amd64",
        memory=8 << 30,
        podman=False,
        desktop=False,
        rootless=False,
        remapped=False,
        selinux=False,
    )
    assert inspection.image() == Image(
        name="mlc-compiler",
        id="sha256:" + "5a" * 32,
        architecture="amd64",
        ours=True,
        version="0.1.0",
        mlc_llm="",
    )


@pytest.mark.parametrize(
    ("info", "traits"),
    [
        ({"OperatingSystem": "Docker Desktop", "Architecture": "aarch64"}, {"desktop"}),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}, {"rootless"}),
        ({"SecurityOptions": ["name=userns", "name=selinux"]}, {"remapped", "selinux"}),
        ({"SecurityOptions": None, "MemTotal": None}, set()),
    ],
)
def test_what_decides_whose_files_they_are(
    docker: Install, info: dict[str, object], traits: set[str]
) -> None:
    docker(info=info)
    found = inspection.daemon()
    assert {name for name in ("desktop", "rootless", "remapped", "selinux") if getattr(found, name)} == traits
    assert found.architecture == ("arm64" if info.get("Architecture") == "aarch64" else "amd64")


def test_podman_answers_in_other_words(docker: Install) -> None:
    docker(raw_info=PODMAN, image={"Id": "ab12", "Config": {"Labels": None}})
    found = inspection.daemon()
    assert (found.podman, found.rootless, found.selinux) == (True, True, True)
    assert (found.version, found.architecture, found.memory) == ("4.3.1", "arm64", 4 << 30)
    assert not inspection.image().ours


def test_without_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    inspection.forget()
    error = refused(inspection.daemon)
    assert (type(error), error.exit_code) == (ToolchainError, 3)
    assert "no program docker" in error.what
    assert "https://docs.docker.com/get-docker/" in error.remedy


@pytest.mark.parametrize(
    ("behaviour", "what", "remedy"),
    [
        (
            {"info": {"ServerErrors": [docker_stand_in.DOWN]}},
            "daemon does not answer",
            "systemctl start docker",
        ),
        ({"fails": {"info": [1, docker_stand_in.DOWN]}}, "daemon does not answer", "Start Docker Desktop"),
        (
            {"fails": {"info": [1, "dial unix /var/run/docker.sock: connect: permission denied"]}},
            "may not use",
            "usermod -aG docker",
        ),
        ({"fails": {"info": [3, "something new"]}}, "docker info failed", "docker info"),
        ({"info": {"OSType": "windows"}}, "Windows containers", "Switch to Linux containers"),
        ({"raw_info": {"unknown": 1}}, "docker info failed", "docker info"),
    ],
)
def test_a_daemon_that_is_of_no_use(
    docker: Install, behaviour: dict[str, object], what: str, remedy: str
) -> None:
    docker(**behaviour)
    for ask in (inspection.daemon, inspection.image):
        error = refused(ask)
        assert error.exit_code == 3
        assert what in error.what
        assert remedy in error.remedy


def test_an_image_that_is_not_there(docker: Install) -> None:
    docker(image=None)
    error = refused(lambda: inspection.image("mine"))
    assert error.what == "Docker 28.3.2 has no image mine."
    assert "docker build -t mlc-compiler -f docker/Dockerfile.mlc ." in error.remedy


def test_a_daemon_that_hangs(docker: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(hangs="info")
    monkeypatch.setattr(inspection, "LIMIT_SECONDS", 0.5)
    error = refused(inspection.daemon)
    assert "gave no answer within" in error.what


def test_a_program_that_is_none(docker: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = docker()
    monkeypatch.setenv("PATH", str(folder / "bin"))
    (folder / "bin" / "docker").write_bytes(b"\0\1\2")
    error = refused(inspection.daemon)
    assert "cannot be started" in error.what


def test_answers_are_kept_for_one_daemon(docker: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = docker()
    for _ in range(3):
        inspection.image()
        inspection.daemon()
    assert [call[0] for call in docker_stand_in.calls(folder)] == ["info", "image"]
    (folder / "behaviour.json").write_text(json.dumps({"image": None}))
    assert inspection.image().ours
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    assert "has no image" in refused(inspection.image).what
    assert "has no image" in refused(inspection.image).what
    assert len(docker_stand_in.calls(folder)) == 4


def test_a_screen_does_not_wait(docker: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = docker()
    for ask in (inspection.daemon, inspection.image):
        with pytest.raises(inspection.Unasked):
            ask(wait=False)
    assert not docker_stand_in.calls(folder)
    found = inspection.image()
    monkeypatch.setattr(inspection, "KEPT_SECONDS", 0.0)
    assert inspection.image(wait=False) == found
    assert len(docker_stand_in.calls(folder)) == 2
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ToolchainError, match="not installed"):
        inspection.image(wait=False)


def test_choices_of_a_screen_count_docker_as_right_until_it_was_asked(
    docker: Install, tmp_path: Path
) -> None:
    folder = docker(image=None)
    plan = plan_for(tmp_path, backend="docker")
    backend, reason = auto.choose(plan, None, wait=False)
    assert backend.name == "docker"
    assert "asked for before a run" in reason
    assert not docker_stand_in.calls(folder)
    with pytest.raises(ToolchainError, match="no image"):
        auto.choose(plan, None)
    with pytest.raises(ToolchainError, match="no image"):
        auto.choose(plan, None, wait=False)


def test_auto_on_a_screen_takes_docker_when_it_has_answered(
    docker: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without the compiler: the first look refuses and asks, a later one knows."""
    folder = docker()
    monkeypatch.setitem(sys.modules, "tvm", None)
    plan = plan_for(tmp_path, compile=True)
    for _ in range(20):  # as many as a screen has choices
        with contextlib.suppress(ToolchainError):
            auto.choose(plan, None, wait=False)
    limit = time.monotonic() + 60
    while True:
        with contextlib.suppress(inspection.Unasked):
            inspection.image(wait=False)
            break
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert auto.choose(plan, None, wait=False)[0].name == "docker"
    assert [call[0] for call in docker_stand_in.calls(folder)] == ["info", "image"]
