"""Probes of the other backends: Docker with its image, and mlc_llm."""

import platform
from collections.abc import Iterator
from pathlib import Path

import docker_stand_in
import pytest
from toolchain_stand_ins import stand_in
from toolchain_support import POSIX, look, tools

from engine.backends.docker import inspection
from engine.backends.official.own_environment import FLAVOURS, flavours
from engine.toolchain.groups import mlc_llm as mlc_llm_group

__all__ = ["tools"]


class TestDocker:
    @pytest.fixture(autouse=True)
    def _forget(self) -> Iterator[None]:
        yield
        inspection.forget()

    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **behaviour: object) -> None:
        folder = docker_stand_in.install(tmp_path / "docker", **behaviour)
        monkeypatch.setenv("PATH", str(folder))
        inspection.forget()

    def test_a_client(self, tools: Path) -> None:
        stand_in(tools, "docker", "Docker version 28.2.2, build e6534b4\n")
        assert look("docker").found == "Docker version 28.2.2, build e6534b4"

    @pytest.mark.usefixtures("tools")
    def test_nothing_of_it(self) -> None:
        for name in ("docker", "docker-daemon", "docker-image", "docker-mlc_llm"):
            assert look(name).status == "missing"

    @POSIX
    def test_daemon_and_image_for_this_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        self.install(tmp_path, monkeypatch)
        assert look("docker-daemon").found == "Docker 28.3.2, amd64, 8.0 GiB"
        assert look("docker-image").found == "mlc-compiler, amd64, mlc-wizard 0.1.0"

    @POSIX
    def test_mlc_llm_in_the_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(tmp_path, monkeypatch)
        without = look("docker-mlc_llm")
        assert without.status == "missing"
        assert "MLC_LLM_WHEELS" in without.remedy.commands[0]
        assert without.blocks("docker", "vulkan")
        assert not without.blocks("docker", "webgpu")
        labels = docker_stand_in.IMAGE["Config"]["Labels"] | {inspection.MLC_LLM_LABEL: "mlc-llm-cpu"}  # type: ignore[index]
        self.install(tmp_path, monkeypatch, image={"Config": {"Labels": labels}})
        assert look("docker-mlc_llm").found == "mlc-llm-cpu, in mlc-compiler"

    @POSIX
    def test_an_image_for_another_processor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
        self.install(tmp_path, monkeypatch, info={"Architecture": "aarch64"})
        finding = look("docker-image")
        assert finding.status == "broken"
        assert finding.blocks("docker", "cpu")
        assert not finding.blocks("docker", "webgpu")
        assert "--platform linux/arm64" in finding.remedy.commands[0]

    @POSIX
    def test_no_daemon_and_no_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(tmp_path, monkeypatch, image=None)
        assert look("docker-image").status == "missing"
        self.install(tmp_path, monkeypatch, fails={"info": [1, docker_stand_in.DOWN]})
        assert look("docker-daemon").status == "broken"
        assert look("docker-image").found.startswith("not known: Docker's daemon")


class TestMlcLlm:
    """What is found of it, test_official_interpreter.py tests; here, what the check makes of that."""

    @pytest.mark.usefixtures("tools")
    def test_nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own = tmp_path / "own"
        monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(own))
        monkeypatch.delenv("VIRTUAL_ENV", raising=False)
        finding = look("mlc_llm")
        assert finding.status == "missing"
        assert finding.remedy.environment == str(own)
        assert finding.remedy.safe == bool(flavours())
        elsewhere = finding.remedy.elsewhere(str(tmp_path / "other"))
        assert not any(str(own) in word for argv in elsewhere.runs for word in argv)

    @pytest.mark.parametrize(
        ("driver", "rocm", "wanted"),
        [
            ("", "", "cpu"),
            ("| NVIDIA-SMI 570.86   Driver Version: 570.86   CUDA Version: 12.8  |", "", "cu128"),
            ("| NVIDIA-SMI 580.65   Driver Version: 580.65   CUDA Version: 13.1  |", "", "cu130"),
            ("| NVIDIA-SMI 470.10   Driver Version: 470.10   CUDA Version: 11.4  |", "", "cpu"),
            ("no version at all", "6.1.3-122", "rocm61"),
            ("", "7.0.1", "rocm62"),
        ],
    )
    def test_the_build_for_this_machine(
        self, tools: Path, monkeypatch: pytest.MonkeyPatch, driver: str, rocm: str, wanted: str
    ) -> None:
        if driver:
            stand_in(tools, "nvidia-smi", driver)
        monkeypatch.setenv("ROCM_PATH", str(tools))
        (tools / ".info").mkdir()
        if rocm:
            (tools / ".info" / "version").write_text(rocm)
        assert mlc_llm_group.flavour(FLAVOURS) == wanted
        assert mlc_llm_group.flavour(("cpu",)) == "cpu"

    @POSIX
    def test_a_launcher_whose_interpreter_crashes(self, tools: Path) -> None:
        python = stand_in(tools, "python3", "Fatal Python error: init_fs_encoding\n", dies="ABRT")
        launcher = stand_in(tools, "mlc_llm")
        launcher.write_text(f"#!{python}\n")
        finding = look("mlc_llm")
        assert finding.status == "broken"
        assert str(python) in finding.found
        assert finding.blocks("mlc_llm", "cuda")
