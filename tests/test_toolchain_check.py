"""The check as a whole: each probe in a child of its own, its limits, and what an import may do there."""

import os
import threading
import time
from pathlib import Path

import psutil
import pytest
from toolchain_stand_ins import ABORTS, bare_path, fake_package, stand_in
from toolchain_support import POSIX

from engine.toolchain import packages
from engine.toolchain.check import Found, Started, check, in_children
from engine.toolchain.finding import Finding
from engine.toolchain.registry import BY_ID, PROBES

QUICK = ("python", "node", "browser")


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


TVM = ("tvm", "tvm-ffi", "tvm-codegen")


def all_found(env: dict[str, str]) -> dict[str, Finding]:
    events = list(check([BY_ID[name] for name in TVM], threading.Event(), seconds=100, env=env))
    assert {event.id for event in events if isinstance(event, Started)} == set(TVM)
    findings = [event.finding for event in events if isinstance(event, Found)]
    assert len(findings) == len(TVM)
    return {finding.id: finding for finding in findings}


@POSIX
def test_probes_that_share_an_import_tell_what_they_can(tmp_path: Path) -> None:
    """TVM takes seconds to import, so its probes share a child; they do not share what goes wrong before."""
    assert len({BY_ID[name].child for name in TVM}) == 1
    told = all_found(fake_package(tmp_path, "tvm", ABORTS))
    assert told["tvm-ffi"].status == "ok"
    for name in ("tvm", "tvm-codegen"):
        assert told[name].found.startswith("crashed (SIGABRT)")
        assert "do not belong together" in told[name].why


def test_one_of_them_that_fails_by_itself_leaves_the_others(tmp_path: Path) -> None:
    told = all_found(distribution(tmp_path, "mlc-ai-nightly-cpu", "0.20.dev1", "tvm"))
    assert told["tvm"].status == "broken"
    assert (told["tvm-ffi"].status, told["tvm-codegen"].status) == ("ok", "ok")
    told = all_found(fake_package(tmp_path / "fake", "tvm", "raise ImportError('no module named this')"))
    assert told["tvm-ffi"].status == "ok"
    for name in ("tvm", "tvm-codegen"):
        assert "ImportError: no module named this" in told[name].found


def test_the_first_row_does_not_wait_for_the_last() -> None:
    """Children begin with those that may take long, then in the order of the rows."""
    children = [[probe.id for probe in child] for child in in_children(PROBES)]
    assert children[:3] == [["tvm-ffi", "tvm", "tvm-codegen"], ["mlc_llm"], ["python"]]
    rest = [name for child in children[2:] for name in child]
    assert rest == [probe.id for probe in PROBES if probe.id in rest]


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
