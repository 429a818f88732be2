"""The check as a whole: children, limits, verdicts, and `mlc-wizard --check`."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from toolchain_stand_ins import bare_path, fake_package, stand_in

from engine import process
from engine.catalog import TARGETS
from engine.toolchain import packages, report, verdict
from engine.toolchain.check import Found, Started, check
from engine.toolchain.finding import NOTHING, Finding, Remedy, running
from engine.toolchain.probe import Probe
from engine.toolchain.registry import BY_ID, PROBES

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals")
QUICK = ("python", "node", "browser")
ABORTED = "terminate called after throwing an instance of 'tvm::ffi::Error'"
ABORTS = f"""
import os
os.write(2, {ABORTED!r}.encode() + b"\\n")
os.write(2, b"  what():  TypeAttr `__ffi_repr__` is already registered for type index 130\\n")
os.abort()
"""


def found(name: str, *, seconds: float = 100, **env: str) -> Finding:
    events = list(check([BY_ID[name]], threading.Event(), seconds=seconds, env=env))
    assert events[0] == Started(name)
    assert isinstance(events[-1], Found)
    return events[-1].finding


def gone(pid: int) -> bool:
    """Whether that process ends; it was told to, and the system may take its time."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_every_probe_is_told_twice(tmp_path: Path) -> None:
    """As it begins, and what it found; in whatever order they come."""
    probes = [BY_ID[name] for name in QUICK]
    events = list(check(probes, threading.Event(), env={"PATH": bare_path(tmp_path)}))
    assert {event.id for event in events if isinstance(event, Started)} == set(QUICK)
    findings = {event.finding.id: event.finding for event in events if isinstance(event, Found)}
    assert set(findings) == set(QUICK)
    assert findings["python"].status == "ok"
    assert findings["node"].status == "missing"


@POSIX
def test_a_hanging_program_ends_at_the_limit_with_all_that_it_started(tmp_path: Path) -> None:
    stand_in(tmp_path, "emcc", "so far, so good", hangs=True)
    finding = found("emcc", seconds=4, PATH=str(tmp_path))
    assert (finding.id, finding.status) == ("emcc", "broken")
    assert "answer within" in finding.found  # the program's own limit, or on a busy machine the probe's
    pid = tmp_path / "emcc.pid"
    assert not pid.exists() or gone(int(pid.read_text()))


@POSIX
def test_what_a_program_has_started_ends_with_the_check(tmp_path: Path) -> None:
    stand_in(tmp_path, "emcc", hangs=True)
    events = check([BY_ID["emcc"]], threading.Event(), seconds=6000, env={"PATH": str(tmp_path)})
    assert next(events) == Started("emcc")
    pid = tmp_path / "emcc.pid"
    while not (pid.exists() and pid.read_text().endswith("\n")):
        time.sleep(0.02)
    events.close()
    assert gone(int(pid.read_text()))


def test_a_probe_that_hangs_itself_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """An import that never comes back."""
    pid = tmp_path / "pid"
    code = (
        f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    finding = found("tvm", seconds=4, **fake_package(tmp_path, "tvm", code))
    assert (finding.id, finding.status) == ("tvm", "broken")
    assert finding.found.startswith("no answer within 4 s")
    assert "engine.toolchain tvm" in finding.remedy.commands[0]
    assert not pid.exists() or gone(int(pid.read_text()))


@POSIX
def test_an_import_that_aborts_is_a_finding_with_its_cause(tmp_path: Path) -> None:
    finding = found("tvm", **fake_package(tmp_path, "tvm", ABORTS))
    assert finding.status == "broken"
    assert finding.found.startswith("crashed (SIGABRT)")
    assert "do not belong together" in finding.why
    assert finding.remedy.told
    assert finding.blocks("embedded", "webgpu")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ImportError('no module named this')", "ImportError: no module named this"),
        ("import os; os._exit(5)", "exit code 5"),
        ("import os; os.write(1, bytes(range(256)) * 9 + b'\\n'); os._exit(5)", "exit code 5"),
        ('print(\'\\x1e\' + \'{"finding": {"id": "tvm"}}\'); raise SystemExit(4)', "exit code 4"),
    ],
    ids=["raises", "leaves", "rubbish", "half a record"],
)
def test_an_import_that_ends_otherwise_is_a_finding(tmp_path: Path, code: str, told: str) -> None:
    finding = found("tvm", **fake_package(tmp_path, "tvm", code))
    assert finding.status == "broken"
    assert told in finding.found
    assert finding.found.isprintable()


def distribution(folder: Path, name: str, version: str, *packages: str) -> dict[str, str]:
    """The environment in which `name` is installed in `folder`, in front of all else."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text("".join(f"{package}\n" for package in packages))
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[1])])}


def test_a_tvm_in_front_of_the_installed_one(tmp_path: Path) -> None:
    """As in a shell that was set up for building TVM."""
    finding = found("tvm", **fake_package(tmp_path, "tvm", "__version__ = '0.99.dev0'"))
    assert finding.status == "broken"
    assert f"TVM 0.99.dev0 that is not the package apache-tvm, in {tmp_path / 'tvm'}" in finding.found
    assert "PYTHONPATH" in finding.remedy.told


def test_an_environment_with_two_tvms(tmp_path: Path) -> None:
    finding = found("tvm", **distribution(tmp_path, "mlc-ai-nightly-cpu", "0.20.dev1", "tvm"))
    assert finding.status == "broken"
    assert "and mlc-ai-nightly-cpu in one environment" in finding.found
    assert not finding.remedy.safe, "it removes what somebody installed"
    assert any("uninstall mlc-ai-nightly-cpu" in line for line in finding.remedy.commands)


def test_other_versions(tmp_path: Path) -> None:
    env = distribution(tmp_path, "ziglang", "0.1", "ziglang")
    zig = found("zig", **env)
    assert (zig.status, zig.wanted) == ("broken", packages.pinned("ziglang"))
    assert f"ziglang=={zig.wanted}" in zig.remedy.runs[0]
    ffi = found("tvm-ffi", **distribution(tmp_path, "apache-tvm-ffi", "0.1", "tvm_ffi"))
    assert (ffi.status, ffi.found.partition(",")[0]) == ("broken", "0.1")


def test_a_zig_that_is_gone_or_of_no_use(tmp_path: Path) -> None:
    env = fake_package(tmp_path, "ziglang", "")
    gone = found("zig", **env)
    assert (gone.status, "there is no zig in" in gone.found) == ("broken", True)
    program = stand_in(tmp_path / "ziglang", "zig", "Illegal instruction", code=132)
    if program.suffix != ".cmd":  # on Windows the package holds zig.exe
        useless = found("zig", **env)
        assert (useless.status, "exit code 132" in useless.found) == ("broken", True)


def test_closing_the_check_ends_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    write = f"pathlib.Path({str(pid)!r}).write_text(f'{{os.getpid()}}\\n')"
    env = fake_package(tmp_path, "tvm", f"import os, pathlib, time\n{write}\ntime.sleep(600)")
    events = check([BY_ID["tvm"]], threading.Event(), seconds=600, env=env)
    assert next(events) == Started("tvm")
    while not (pid.exists() and pid.read_text().endswith("\n")):
        time.sleep(0.02)
    events.close()
    assert gone(int(pid.read_text()))


def test_after_a_cancel_nothing_more_is_found() -> None:
    cancel = threading.Event()
    cancel.set()
    assert not list(check(PROBES, cancel))


# --- verdicts ------------------------------------------------------------------------------------


def finding_of(name: str, status: Any = "ok", **changes: Any) -> Finding:
    return BY_ID[name].finding(status, "something", **changes)


ALL_WELL = [finding_of(probe.id) for probe in PROBES]


def judged(*changed: Finding, pending: tuple[Probe, ...] = ()) -> dict[str, verdict.Verdict]:
    by_id = {finding.id: finding for finding in ALL_WELL} | {finding.id: finding for finding in changed}
    left = [finding for name, finding in by_id.items() if name not in {probe.id for probe in pending}]
    return {v.target: v for v in verdict.verdicts(left, pending)}


def test_all_well() -> None:
    verdicts = judged()
    assert list(verdicts) == list(TARGETS)
    for target in ("webgpu", "cpu"):
        assert verdicts[target].state == "works"
        assert verdicts[target].backends[0] == "embedded"
        assert (
            verdicts[target].sentence(BY_ID) == "works with the embedded, the mlc_llm and the docker backend"
        )


def test_a_missing_part_counts_against_those_that_need_it_alone() -> None:
    verdicts = judged(finding_of("wasm-runtime", "broken"))
    assert verdicts["cpu"].backends[0] == "embedded"
    assert verdicts["webgpu"].lacking["embedded"] == ("wasm-runtime",)
    verdicts = judged(finding_of("git-lfs", "missing"), finding_of("node", "missing"))
    assert verdicts == judged()


def test_what_nobody_misses_is_not_marked_as_a_fault() -> None:
    marked = {name: next(report.row(finding_of(name, "missing"), None))[0] for name in ("git-lfs", "zig")}
    assert marked == {"git-lfs": "-", "zig": "✗"}
    assert next(report.row(finding_of("emcc", "missing"), None, brief=True)).startswith("- missing")
    assert next(report.row(finding_of("git-lfs", "broken"), None)).startswith("✗ broken")


def test_tvm_missing_is_all_of_the_embedded_backend() -> None:
    for v in judged(finding_of("tvm", "missing")).values():
        assert "embedded" not in v.backends
        if "embedded" in verdict.covering(v.target):
            assert v.lacking["embedded"] == ("tvm",)
            assert "apache-tvm" in v.sentence(BY_ID) or v.backends


def test_of_what_is_lacking_the_first_of_each_group_is_named() -> None:
    names = ("docker", "docker-daemon", "docker-image", "docker-mlc_llm", "mlc_llm", "vulkan-loader")
    told = judged(*(finding_of(name, "missing") for name in names))["vulkan"]
    assert told.lacking["docker"] == names[:4]
    assert told.sentence(BY_ID) == (
        "the mlc_llm backend lacks mlc_llm and Vulkan loader; the docker backend lacks Docker"
    )


def test_warnings_block_nothing() -> None:
    assert judged(*(finding_of(probe.id, "warn") for probe in PROBES)) == judged()


def test_a_finding_may_narrow_whom_it_blocks() -> None:
    verdicts = judged(finding_of("tvm-codegen", "broken", needed_for={"embedded": ("webgpu",)}))
    assert "embedded" not in verdicts["webgpu"].backends
    assert "embedded" in verdicts["cpu"].backends


def test_unknown_until_what_is_needed_was_looked_at() -> None:
    tvm = BY_ID["tvm"]
    alone = (finding_of("docker", "missing"), finding_of("mlc_llm", "missing"))
    assert judged(*alone, pending=(tvm,))["cpu"].state == "unknown"
    assert judged(*alone, pending=(BY_ID["node"],))["cpu"].state == "works"
    assert judged(*alone, finding_of("zig", "broken"), pending=(tvm,))["cpu"].state == "missing"
    assert judged(pending=(tvm,))["cpu"].backends == ("mlc_llm", "docker")


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 80, 100])
def test_rows_keep_within_their_width_and_lose_nothing(width: int) -> None:
    row = finding_of("emcc", "missing", remedy=Remedy(told="Install it. " * 9, commands=("a " * 60,)))
    lines = list(report.row(row, width))
    *text, command = lines
    assert all(len(line) <= width for line in text)
    assert command.strip() == ("a " * 60).strip()
    told = "".join("".join(text).split())  # long words are broken where they must be
    for part in (row.title, row.found, row.wanted, row.why, row.remedy.told):
        assert "".join(part.split()) in told


def test_the_report_hides_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    finding = finding_of("python")
    text = report.text(
        [BY_ID["python"].finding("ok", f"in {tmp_path / 'venv'}"), finding], verdict.verdicts([]), BY_ID
    )
    assert str(tmp_path) not in text
    assert f"in ~{os.sep}venv" in text
    assert text.isascii()


def test_a_remedy_for_another_environment() -> None:
    remedy = running(
        "Make /one/env.",
        ("python", "-m", "venv", "/one/env"),
        ("/one/env/bin/pip", "install"),
        environment="/one/env",
    )
    moved = remedy.elsewhere("/other")
    assert moved.runs == (("python", "-m", "venv", "/other"), ("/other/bin/pip", "install"))
    assert (moved.told, moved.environment) == ("Make /other.", "/other")
    assert remedy.safe
    assert not NOTHING.safe


# --- the command ---------------------------------------------------------------------------------


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
