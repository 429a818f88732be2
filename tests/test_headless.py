"""engine.headless and engine.console: what is printed where, exit codes, ctrl+c, closed pipes."""

import contextlib
import dataclasses
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine import headless, process
from engine.backends.base import StageCommand
from engine.console import Console, colours_wanted
from engine.errors import NotAuthorizedError, StageError, UsageError
from engine.events import Check, RunEnded, RunStarted, StageEnded, StageStarted
from engine.plan import ExportPlan
from engine.run import verification
from engine.run.job import prepare

GOLDEN = Path(__file__).parent / "data" / "golden"


def plan_for(folder: Path) -> ExportPlan:
    return ExportPlan(
        source=str(GOLDEN / "llama_tied" / "hf"),
        quantization="q4f32_1",
        context_window_size=256,
        prefill_chunk_size=64,
        compile=False,
        output=folder / "out",
    )


def test_stdout_is_the_folder_and_stderr_the_story(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_for(tmp_path)
    assert headless.run(plan) == 0
    told = capsys.readouterr()
    assert told.out == f"{plan.output}\n"
    for text in (
        f"Exporting to {plan.output}",
        "[1/3] convert_weight",
        "[3/3] verify",
        "params_shard_0.bin",
        "finite weights",
        f"mlc-wizard verify {plan.output}",
    ):
        assert text in told.err
    assert "\x1b" not in told.err
    assert "\r" not in told.err
    headless.run(plan)
    assert "[1/3] convert_weight: skipped" in capsys.readouterr().err


def test_json_is_one_event_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_for(tmp_path)
    assert headless.run(plan, as_json=True) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "RunStarted"
    assert events[0]["stages"] == ["convert_weight", "gen_config", "verify"]
    assert events[-1]["event"] == "RunEnded"
    assert events[-1]["exit_code"] == 0
    assert all(check["passed"] for check in events[-1]["checks"])
    assert {e["event"] for e in events} >= {"Advised", "StageStarted", "Progress", "Output", "StageEnded"}


def test_dry_run_prints_the_commands_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_for(tmp_path / "with space")
    commands = [list(command.argv) for command in prepare(plan).commands()]
    assert headless.dry_run(plan) == 0
    told = capsys.readouterr()
    if os.name == "posix":
        assert [shlex.split(line) for line in told.out.splitlines()] == commands
    assert "q4-small-model" in told.err
    assert headless.dry_run(plan, as_json=True) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["command"] for event in events] == commands
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_hub_model_says_what_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ExportPlan(source="someone/model", quantization="q0f16", output=tmp_path / "out")
    assert headless.dry_run(plan) == 0
    told = capsys.readouterr()
    assert "engine.model.hub someone/model" in told.out
    assert "SNAPSHOT stands for the folder" in told.err


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_for(tmp_path)
    headless.run(plan)
    capsys.readouterr()
    assert headless.verify(plan.output) == 0
    told = capsys.readouterr()
    assert told.out == "ok\n"
    assert "receipt: size and sha256 of 6 files" in told.err
    (plan.output / "tokenizer.json").write_text("{}")
    assert headless.verify(plan.output, as_json=True) == 1
    told = capsys.readouterr()
    failed = [c["name"] for line in told.out.splitlines() if not (c := json.loads(line))["passed"]]
    assert failed == ["tokenizer files", "receipt"]


def test_list_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.toml").write_text(
        'version = 1\ndescription = "fine"\n[model]\nsource = "a/b"\n[quantization]\nmode = "q0f16"\n'
    )
    (tmp_path / "broken.toml").write_text("version = 1\n[quantisation]\n")
    monkeypatch.setattr("engine.preset.user_folder", lambda: tmp_path)
    assert headless.list_presets() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["good", "fine"] for line in lines)
    assert any(line.startswith("broken") and "cannot be used: " in line for line in lines)
    assert headless.list_presets(as_json=True) == 0
    entries = {e["name"]: e for e in map(json.loads, capsys.readouterr().out.splitlines())}
    assert entries["good"]["error"] == ""
    assert "quantisation" in entries["broken"]["error"]


def test_an_error_is_told_with_all_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert headless.tell(UsageError("What.", why="Why.", remedy="Do this.\nor that.")) == 2
    assert capsys.readouterr().err == "error: What.\n  Why.\n  Do this.\n  or that.\n"
    assert headless.tell(NotAuthorizedError("No.")) == 4


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert headless.size_of(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.256, "0.26s"), (59.9, "59.90s"), (60, "1:00"), (754, "12:34")]
)
def test_durations(seconds: float, text: str) -> None:
    assert headless.duration(seconds) == text


# --- the console ---------------------------------------------------------------------------------


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal, or not."""

    def __init__(self, encoding: str = "utf-8", *, tty: bool = True) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="")
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return monkeypatch


def tell_a_failed_run(terminal: Terminal) -> str:
    narrator = headless._Narrator(Console(terminal))
    narrator.tell(RunStarted(output="/o", log="/o/l", backend="b", stages=("convert_weight", "verify")))
    narrator.tell(StageStarted(stage="convert_weight", command=("a", "b c")))
    narrator.tell(StageEnded(stage="convert_weight", outcome="failed", seconds=1, what="W", remedy="R"))
    narrator.tell(RunEnded(outcome="failed", exit_code=1, seconds=1, output="/o"))
    return terminal.text()


def test_colours_and_who_wants_none(plain_environment: pytest.MonkeyPatch) -> None:
    assert "\x1b[31m" in tell_a_failed_run(Terminal())
    assert "\x1b" not in tell_a_failed_run(Terminal(tty=False))
    plain_environment.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in tell_a_failed_run(Terminal())
    plain_environment.setenv("FORCE_COLOR", "1")
    assert not colours_wanted(Terminal())
    plain_environment.delenv("NO_COLOR")
    assert colours_wanted(Terminal(tty=False))
    plain_environment.delenv("FORCE_COLOR")
    plain_environment.setenv("TERM", "dumb")
    assert not colours_wanted(Terminal())


def test_ascii_where_nothing_else_can_be_shown(plain_environment: pytest.MonkeyPatch) -> None:
    text = tell_a_failed_run(Terminal("ascii", tty=False))
    assert "FAILED convert_weight failed" in text
    assert "✗ convert_weight failed" in tell_a_failed_run(Terminal(tty=False))
    console = Console(Terminal("latin-1"))
    assert console.good == "ok"


@pytest.mark.parametrize("columns", [1, 10, 40, 80, 300])
def test_any_width(plain_environment: pytest.MonkeyPatch, columns: int) -> None:
    plain_environment.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    console = Console(terminal)
    console.status("x" * 500)
    shown = terminal.text().removeprefix("\r\x1b[K")
    assert len(shown) <= max(columns - 1, 1)
    console.ends("left", "1.00s", "green")
    last = terminal.text().rstrip("\n").split("\n")[-1]
    assert last.endswith("1.00s")
    assert "left" in last
    assert tell_a_failed_run(Terminal())


def test_the_live_line_never_stays(plain_environment: pytest.MonkeyPatch) -> None:
    plain_environment.setenv("NO_COLOR", "1")
    terminal = Terminal()
    console = Console(terminal)
    console.status("10%")
    console.status("20%")
    console.line("said")
    assert terminal.text() == "\r\x1b[K10%\r\x1b[K20%\r\x1b[Ksaid\n"


def test_progress_in_a_pipe_is_a_line_now_and_then(plain_environment: pytest.MonkeyPatch) -> None:
    terminal = Terminal(tty=False)
    console = Console(terminal)
    for i in range(1000):
        console.status(f"{i}%")
    assert terminal.text() == "0%\n"


def test_shards_share_a_line(plain_environment: pytest.MonkeyPatch) -> None:
    terminal = Terminal(tty=False)
    files = tuple((f"params_shard_{i}.bin", 1 << 20) for i in range(12))
    check = Check(name="shard files", passed=True, found="12 MiB")
    end = RunEnded(
        outcome="done", exit_code=0, seconds=1, output="/o", files=(*files, ("a.json", 5)), checks=(check,)
    )
    headless._Narrator(Console(terminal)).tell(end)
    assert "params_shard_0.bin … params_shard_11.bin" in terminal.text()
    assert "12.0 MiB" in terminal.text()
    assert "params_shard_3.bin" not in terminal.text()


@pytest.mark.parametrize(
    ("library", "checked", "said"),
    [
        ("model-webgpu.wasm", (), "not run here; a library for WebGPU runs in a browser"),
        ("model-cuda.so", (), "not run here; a library for cuda runs in MLC's engine"),
        ("model-iphone.tar", (), "not run here; a library for iphone runs in an app"),
        ("model-cpu.so", (), "not run here; a library for cpu runs"),
        ("model-cpu.so", ("generation",), ""),
        ("tokenizer.json", (), ""),
    ],
)
def test_what_was_not_run_is_told(library: str, checked: tuple[str, ...], said: str) -> None:
    terminal = Terminal(tty=False)
    checks = tuple(Check(name=name, passed=True, found="fine") for name in checked)
    end = RunEnded(outcome="done", exit_code=0, seconds=1, output="/o", files=((library, 5),), checks=checks)
    headless._Narrator(Console(terminal)).tell(end)
    assert ("not run here" in terminal.text()) == bool(said)
    assert said in terminal.text()


@pytest.mark.parametrize(
    ("library", "said"),
    [("model-webgpu.wasm", "WebLLM's model_list"), ("model-android.tar", "mlc-package-config.json")],
)
def test_who_loads_a_library_is_told_where_its_entry_is(library: str, said: str) -> None:
    end = RunEnded(outcome="done", exit_code=0, seconds=1, output="/o", files=((library, 5),))
    assert said in headless.record_told(end)
    assert headless.record_told(dataclasses.replace(end, files=(("model-cpu.so", 5),))) == ""


# --- processes -----------------------------------------------------------------------------------

DRIVER = """
import sys
from pathlib import Path
from engine import headless
from engine.backends import auto
from engine.backends.base import StageCommand
from engine.plan import ExportPlan

class StandIn:
    name = "stand-in"
    def commands(self, plan, folders):
        return (StageCommand(stage="convert_weight", argv=(sys.executable, "-c", sys.argv[3])),)

auto.choose = lambda plan, facts: (StandIn(), "a stand-in")
plan = ExportPlan(source=sys.argv[1], quantization="q0f16", compile=False, output=Path(sys.argv[2]))
sys.exit(headless.run(plan))
"""
PATIENT = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{PATIENT}"
posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@contextlib.contextmanager
def running(folder: Path, stage: str) -> Iterator["tuple[subprocess.Popen[str], list[int]]"]:
    """A headless run whose first stage is ready, and the ids of all that it has started."""
    source = str(GOLDEN / "llama_tied" / "hf")
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", DRIVER, source, str(folder / "out"), stage],
        env=process.child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    try:
        while "ready" not in (line := run.stderr.readline()) or line.lstrip().startswith("+"):
            assert line
        yield run, [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
    finally:
        run.kill()
        run.communicate()


def all_gone(pids: list[int]) -> None:
    limit = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.02)


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_the_run_in_good_order(tmp_path: Path, name: str) -> None:
    with running(tmp_path, PATIENT) as (run, children):
        assert len(children) == 2
        run.send_signal(getattr(signal, name))
        out, err = run.communicate(timeout=60)
        assert run.returncode == 130
        assert out == ""
        assert "Stopping" in err
        assert "convert_weight cancelled" in err
        assert "Traceback" not in err
        all_gone(children)
    assert not list((tmp_path / "out" / ".mlc-wizard").glob("*.partial"))


@posix
def test_a_second_ctrl_c_leaves_at_once_and_nothing_stays(tmp_path: Path) -> None:
    with running(tmp_path, STUBBORN) as (run, children):
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        while "Stopping" not in run.stderr.readline():
            pass
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 130
        all_gone(children)


@posix
def test_kill_9_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, STUBBORN) as (run, children):
        run.kill()
        all_gone(children)


@posix
def test_verify_outlives_a_library_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks run in a child: whatever a library does there, here it is one message."""
    crash = (sys.executable, "-c", "import os; os.abort()")
    monkeypatch.setattr(verification, "verify_command", lambda _: StageCommand(stage="verify", argv=crash))
    with pytest.raises(StageError, match=r"ended by signal 6 \(SIGABRT\)") as caught:
        headless.verify(tmp_path)
    assert caught.value.fix == "fresh"
