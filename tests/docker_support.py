"""What tests of Docker share: the stand-in on the PATH of a test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import docker_stand_in
import pytest

from engine.backends.docker import inspection

Install = Callable[..., Path]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a `docker` that behaves as told, in front of the PATH; its folder."""
    path = os.environ["PATH"]

    def install(**behaviour: object) -> Path:
        folder = tmp_path / "docker"
        bin_ = docker_stand_in.install(folder, **behaviour)
        monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{path}")
        inspection.forget()
        return folder

    yield install
    inspection.forget()
