"""Probes that ask a program: stand-ins on a PATH of its own for every state that a tool can be in."""

import os
import sys
from pathlib import Path

import pytest
from toolchain_stand_ins import stand_in
from toolchain_support import POSIX, look, tools

from engine.toolchain.groups.emscripten import VERSION as EMSCRIPTEN

__all__ = ["tools"]

RUBBISH = bytes(range(128, 256)) + b"\x00\x1b[31m\n\xff\xfe"
EMCC = f"emcc (Emscripten gcc/clang-like replacement + linker emulating GNU ld) {EMSCRIPTEN} (cf90417)\n"
NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 12.8, V12.8.93\n"

ANSWERS = [
    ("emcc", EMCC, "ok", EMSCRIPTEN),
    ("emcc", "emcc (Emscripten) 4.0.10 (cf90417)\n", "warn", "4.0.10"),
    ("emcc", "emcc (Emscripten) 2.0.2\n", "warn", "2.0.2"),
    ("node", "v22.11.0\n", "ok", "22.11.0"),
    ("node", "v12.22.9\n", "warn", "12.22.9"),
    ("git-lfs", "git-lfs/3.4.1 (GitHub; linux amd64; go 1.22.2)\n", "ok", "git-lfs/3.4.1"),
    ("nvcc", NVCC, "ok", "nvcc 12.8"),
    ("nvidia-smi", "NVIDIA H100 PCIe, 9.0, 550.54\n", "ok", "NVIDIA H100 PCIe (sm_90, driver 550.54)"),
    ("nvidia-smi", "A, 8.6, 1\nB, 8.9, 1\nC, 9.0, 1\n", "ok", "B (sm_89, driver 1) and 1 more"),
    ("nvidia-smi", "No devices were found\n", "broken", "no device"),
    ("xcrun", "Apple metal version 32023.620\n", "ok", "32023.620"),
]
PROBE_OF = {"nvcc": "cuda-compiler", "nvidia-smi": "cuda-driver", "xcrun": "metal"}
ASKED = ("emcc", "node", "git-lfs", "nvcc", "nvidia-smi", "xcrun")


@pytest.mark.parametrize(("name", "says", "status", "found"), ANSWERS)
def test_a_tool_that_answers(tools: Path, name: str, says: str, status: str, found: str) -> None:
    stand_in(tools, name, says)
    finding = look(PROBE_OF.get(name, name))
    assert finding.status == status
    assert found in finding.found


@pytest.mark.parametrize("name", ASKED)
def test_a_tool_that_is_missing(tools: Path, name: str) -> None:
    finding = look(PROBE_OF.get(name, name))
    without = "no nvcc" if name == "nvcc" else "not a Mac" if name == "xcrun" else f"{name} is not on PATH"
    if name == "xcrun" and sys.platform == "darwin":
        without = "xcrun is not on PATH"
    assert without in finding.found
    assert finding.status == "missing" or "NVRTC" in finding.found


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    ("says", "how", "told"),
    [
        ("something is wrong\n", {"code": 3}, "ended with exit code 3: something is wrong"),
        pytest.param("last words", {"dies": "SEGV"}, "crashed (SIGSEGV): last words", marks=POSIX),
        (RUBBISH, {"code": 1}, "ended with exit code 1"),
    ],
    ids=["fails", "crashes", "rubbish"],
)
def test_a_tool_that_fails(tools: Path, name: str, says: str | bytes, how: dict, told: str) -> None:
    stand_in(tools, name, says, **how)
    finding = look(PROBE_OF.get(name, name))
    assert f"{name} {told}".removesuffix(".cmd") in finding.found.replace(".cmd", "")
    assert finding.status == "broken" or "NVRTC" in finding.found
    assert finding.found.isprintable()


@pytest.mark.parametrize("name", ASKED)
def test_a_tool_that_answers_rubbish(tools: Path, name: str) -> None:
    """In no encoding, without a version, and yet with success."""
    stand_in(tools, name, RUBBISH)
    finding = look(PROBE_OF.get(name, name))
    assert finding.found.isprintable()
    assert finding.status != "missing" or name == "nvcc"
    if name in ("emcc", "node", "nvidia-smi"):
        assert finding.status == "broken"


@pytest.mark.parametrize("name", ASKED)
def test_a_tool_that_hangs(tools: Path, name: str) -> None:
    stand_in(tools, name, "so far, so good", hangs=True)
    finding = look(PROBE_OF.get(name, name), seconds=0.5)
    assert "does not answer within" in finding.found
    assert name in finding.found
    pid = tools / f"{name}.pid"
    if pid.exists():  # here it has no group of its own to end with; see test_toolchain_check.py
        os.kill(int(pid.read_text()), 9)


@POSIX
def test_a_tool_that_is_no_program(tools: Path) -> None:
    stand_in(tools, "emcc").write_bytes(b"\x7fELF garbage")
    finding = look("emcc")
    assert finding.status == "broken"
    assert "cannot be started" in finding.found


def test_emscripten_that_is_not_active(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "emsdk" / "upstream" / "emscripten").mkdir(parents=True)
    monkeypatch.setenv("EMSDK", str(tmp_path / "emsdk"))
    finding = look("emcc")
    assert finding.status == "missing"
    assert finding.remedy.commands == (f". {tmp_path / 'emsdk' / 'emsdk_env.sh'}",)


def test_browsers_are_found_by_name(tools: Path) -> None:
    chromium = stand_in(tools, "chromium", hangs=True)
    assert str(chromium) in look("browser").found.replace(".CMD", ".cmd")
