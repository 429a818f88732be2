"""Probes of this environment: Python, packages, the runtime in the cache, memory; and the table of all."""

import dataclasses
import sys
from pathlib import Path

import pytest
from toolchain_support import look, tools

from engine.embedded.wasm import build, cache, toolchain
from engine.shell import shell_line
from engine.toolchain import packages
from engine.toolchain.groups import python as python_group
from engine.toolchain.groups.python import Interpreter
from engine.toolchain.registry import BY_ID, PROBES

__all__ = ["tools"]


def interpreter(**changes: object) -> Interpreter:
    this = Interpreter(
        version=(3, 12, 4),
        implementation="CPython",
        machine="x86_64",
        system="linux",
        bits=64,
        translated=False,
        libc="",
        path="/usr/bin/python3",
    )
    return dataclasses.replace(this, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({}, "ok", "CPython 3.12.4, x86_64"),
        ({"machine": "arm64", "system": "darwin"}, "ok", "arm64"),
        ({"version": (3, 10, 1)}, "broken", "3.10.1"),
        ({"system": "darwin", "translated": True}, "broken", "under Rosetta on Apple silicon"),
        ({"system": "darwin"}, "broken", "x86_64"),
        ({"system": "win32", "machine": "ARM64"}, "broken", "ARM64"),
        ({"system": "win32", "machine": "AMD64", "translated": True}, "ok", "AMD64"),
        ({"bits": 32}, "broken", "x86_64"),
        ({"libc": "musl"}, "broken", "x86_64"),
    ],
)
def test_pythons(changes: dict[str, object], status: str, told: str) -> None:
    finding = python_group.judge(BY_ID["python"], interpreter(**changes))
    assert finding.status == status
    assert told in finding.found
    assert finding.status == "ok" or finding.remedy.told


def test_this_python_is_one_that_works(tools: Path) -> None:
    assert look("python").status == "ok"
    assert python_group.this().machine


def test_versions_wanted_are_those_of_the_project() -> None:
    for name in ("apache-tvm", "apache-tvm-ffi", "ziglang"):
        assert packages.pinned(name) == packages.installed(name) != ""
    assert packages.pinned("numpy") == ""
    assert packages.pinned("no-such-thing") == ""


def test_what_installs_packages_is_safe_and_names_this_environment() -> None:
    remedy = packages.install("ziglang", "platformdirs", told="Install.")
    (argv,) = remedy.runs
    assert argv[0] == sys.executable or "--python" in argv
    assert argv[-2:] == (f"ziglang=={packages.pinned('ziglang')}", "platformdirs")
    assert remedy.commands == (shell_line(argv),)


class TestTheRuntimeInTheCache:
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
        return tmp_path / "cache" / build.KIND

    def fill(self, name: str = "") -> Path:
        def write(folder: Path) -> None:
            (folder / "objects").mkdir()
            (folder / "objects" / "00.o").write_bytes(b"object")

        return cache.entry(build.KIND, name or build.key(toolchain.find()), write)

    @pytest.mark.usefixtures("place")
    def test_not_there_yet(self) -> None:
        finding = look("wasm-runtime")
        assert finding.status == "warn"
        assert "not compiled yet" in finding.found
        assert finding.remedy.runs[0][-2:] == ("engine.embedded.wasm", "build")

    @pytest.mark.usefixtures("place")
    def test_there(self) -> None:
        folder = self.fill()
        self.fill("old")
        finding = look("wasm-runtime")
        assert finding.status == "ok"
        assert folder.name in finding.found
        assert "1 of other versions" in finding.found

    @pytest.mark.usefixtures("place")
    def test_damaged(self) -> None:
        folder = self.fill()
        (folder / "objects" / "00.o").write_bytes(b"objecT")
        finding = look("wasm-runtime")
        assert finding.status == "warn"
        assert "damaged: objects/00.o" in finding.found
        assert [argv[-1] for argv in finding.remedy.runs] == ["clear", "build"]
        (folder / cache.MANIFEST).write_text("{")
        assert f"damaged: {cache.MANIFEST}" in look("wasm-runtime").found

    def test_a_place_that_cannot_be_written(self, place: Path) -> None:
        place.parent.mkdir()
        place.write_text("a file where a folder should be")
        finding = look("wasm-runtime")
        assert finding.status == "broken"
        assert finding.blocks("embedded", "webgpu")
        assert not finding.blocks("embedded", "cpu")

    @pytest.mark.usefixtures("place")
    def test_clearing_removes_entries_and_frees_their_bytes(self) -> None:
        folder = self.fill()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert cache.clear(build.KIND) == size
        assert not folder.exists()
        assert cache.clear(build.KIND) == 0


def test_memory_and_disk_are_told_as_in_the_review(tools: Path) -> None:
    for name in ("memory", "disk"):
        finding = look(name)
        assert " GB" in finding.found
        assert finding.status in ("ok", "warn")


def test_the_table_of_probes() -> None:
    assert len(BY_ID) == len(PROBES)
    groups = [
        *("python", "tvm", "wasm", "machine", "hub", "browser", "mlc_llm", "emscripten", "docker", "cuda"),
        *("vulkan", "apple", "android"),
    ]
    assert list(dict.fromkeys(probe.group for probe in PROBES)) == groups
    for probe in PROBES:
        assert probe.why.endswith("."), probe.id
        assert not probe.title.endswith(".")
