"""engine.headless: what is printed where, and exit codes."""

import dataclasses
import json
import os
import shlex
from pathlib import Path

import pytest
from conftest import GOLDEN
from console_support import Terminal, plain_environment

from engine import headless
from engine.console import Console
from engine.errors import NotAuthorizedError, UsageError
from engine.events import Check, RunEnded
from engine.plan import ExportPlan
from engine.run.job import prepare

__all__ = ["plain_environment"]


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


def test_what_a_model_says_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    headless.tell(UsageError("It is \x1b]0;mine\x07\x1b[2Jyours.", why="a\x08b"))
    assert capsys.readouterr().err == "error: It is yours.\n  ab\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.256, "0.3 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (754, "12 min 34 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert headless.duration(seconds) == text


def test_shards_share_a_line(plain_environment: pytest.MonkeyPatch) -> None:
    terminal = Terminal(tty=False)
    files = tuple((f"params_shard_{i}.bin", 1 << 20) for i in range(12))
    check = Check(name="shard files", passed=True, found="12 MiB")
    end = RunEnded(
        outcome="done", exit_code=0, seconds=1, output="/o", files=(*files, ("a.json", 5)), checks=(check,)
    )
    headless._Narrator(Console(terminal)).tell(end)
    assert "params_shard_0.bin … params_shard_11.bin" in terminal.text()
    assert "13 MB" in terminal.text()
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
    [("model-webgpu.wasm", "For WebLLM"), ("model-android.tar", "mlc-package-config.json")],
)
def test_who_loads_a_library_is_told_where_its_entry_is(library: str, said: str) -> None:
    end = RunEnded(outcome="done", exit_code=0, seconds=1, output="/o", files=((library, 5),))
    assert said in headless.record_told(end)
    assert headless.record_told(dataclasses.replace(end, files=(("model-cpu.so", 5),))) == ""
