"""`mlc-wizard --check`, as a program of its own: JSON, table, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toolchain_stand_ins import ABORTS, bare_path, fake_package
from toolchain_support import POSIX

from engine import process
from engine.catalog import TARGETS
from engine.toolchain.registry import PROBES


def wizard(*arguments: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    ours = {"PATH": bare_path(folder / "tools"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    ours |= {"MLC_WIZARD_MLC_LLM": str(folder / "mlc_llm")}
    ours |= dict.fromkeys(("VIRTUAL_ENV", "CONDA_PREFIX", "MLC_LLM_SOURCE_DIR", "TVM_NDK_CC"), "")
    return subprocess.run(
        [sys.executable, "-P", "-m", "tui", *arguments],
        capture_output=True,
        encoding="utf-8",
        env=process.child_environment(ours | env),
        cwd=folder,
        check=False,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The whole check on a machine without any tool, as JSON."""
    return wizard("--check", "--json", folder=tmp_path_factory.mktemp("check"), HF_TOKEN="hf_secret")


def test_json_is_one_object_of_a_known_form(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert told.stdout.count("\n") == 1
    assert set(document) == {"version", "findings", "verdicts", "asked", "possible"}
    assert (document["version"], document["asked"], document["possible"]) == (1, ["webgpu", "cpu"], True)
    assert [finding["id"] for finding in document["findings"]] == [probe.id for probe in PROBES]
    for finding in document["findings"]:
        assert set(finding) == {
            *("id", "group", "title", "status", "found", "wanted", "why", "remedy", "needed_for")
        }
        assert finding["status"] in ("ok", "warn", "missing", "broken")
        assert set(finding["remedy"]) == {"told", "commands", "runs", "environment", "safe"}
        assert finding["found"]
        assert finding["status"] == "ok" or finding["remedy"]["told"]
        for backend, targets in finding["needed_for"].items():
            assert backend in ("embedded", "mlc_llm", "docker")
            assert set(targets) <= {*TARGETS, "*"}
    assert [v["target"] for v in document["verdicts"]] == list(TARGETS)
    for v in document["verdicts"]:
        assert set(v) == {"target", "state", "backends", "lacking"}
        assert v["state"] == ("works" if v["backends"] else "missing")
    assert "secret" not in told.stdout + told.stderr


def test_a_machine_without_tools_makes_what_the_embedded_backend_makes(
    told: subprocess.CompletedProcess[str],
) -> None:
    document = json.loads(told.stdout)
    statuses = {finding["id"]: finding["status"] for finding in document["findings"]}
    assert {statuses[name] for name in ("python", "tvm", "tvm-ffi", "tvm-codegen", "zig")} == {"ok"}
    assert {statuses[name] for name in ("emcc", "node", "git-lfs", "android-ndk")} == {"missing"}
    works = {v["target"]: v["backends"] for v in document["verdicts"]}
    assert works["webgpu"] == works["cpu"] == ["embedded"]


def test_the_table_without_a_terminal_and_in_40_columns(tmp_path: Path) -> None:
    whole = wizard("--check", "--target", "cpu", folder=tmp_path, COLUMNS="40")
    assert whole.returncode == 0, whole.stderr
    rows = whole.stdout.splitlines()
    assert any(row.startswith("✓ ok       apache-tvm: ") for row in rows)
    assert rows[-1] == "✓ cpu      works with the embedded backend"
    assert "Emscripten" not in whole.stdout, "nothing that cpu does not need"
    assert "Libraries for cpu can be made here." in whole.stderr


@POSIX
def test_what_cannot_be_made_is_exit_code_3(tmp_path: Path) -> None:
    env = fake_package(tmp_path / "fake", "tvm", ABORTS)
    broken = wizard("--check", "--target", "cpu", folder=tmp_path, **env)
    assert broken.returncode == 3
    assert "✗ broken   apache-tvm: crashed (SIGABRT)" in broken.stdout
    assert "✗ cpu      the embedded backend lacks" in broken.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--check", "--target", "webgpuu"], "Targets are webgpu, cpu"),
        (["--target", "cpu"], "--target needs --check."),
        (["--toolchain", "--json"], "mlc-wizard --check --json"),
        (["--toolchain"], "mlc-wizard --check"),
    ],
)
def test_usage(tmp_path: Path, arguments: list[str], told: str) -> None:
    refused = wizard(*arguments, folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert told in refused.stderr


def test_the_front_end_loads_neither_compiler_nor_hub_client() -> None:
    heavy = {"tvm", "huggingface_hub", "textual"}
    code = f"import sys, engine.toolchain.command; print({heavy} & set(sys.modules))"
    command, env = [sys.executable, "-P", "-c", code], process.child_environment()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "set()"


def test_the_runtime_is_cleared_by_its_own_command(tmp_path: Path) -> None:
    entry = tmp_path / "cache" / "wasm-runtime" / "old"
    entry.mkdir(parents=True)
    (entry / "a.o").write_bytes(bytes(1 << 20))
    env = process.child_environment({"MLC_WIZARD_CACHE": str(tmp_path / "cache"), "MLC_WIZARD_RECORDS": "0"})
    command = [sys.executable, "-P", "-m", "engine.embedded.wasm", "clear"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert "Removed 1.0 MiB" in done.stderr
    assert not entry.exists()
