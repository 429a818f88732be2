"""tui.cli: the command as users run it, in a process of its own."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GOLDEN

from engine import process

PRESET = f"""
version = 1
description = "a test"
[model]
source = {json.dumps(str(GOLDEN / "llama_tied" / "hf"))}
[quantization]
mode = "q4f32_1"
[context]
context_window_size = 256
prefill_chunk_size = 64
[target]
device = "webgpu"
compile = false
[output]
directory = "out"
"""


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my.toml").write_text(PRESET)
    return tmp_path


def wizard(folder: Path, *argv: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {k: v for k, v in process.child_environment().items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, "-m", "tui", *argv],
        cwd=folder,
        env=env | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def test_a_preset_from_start_to_finish(folder: Path) -> None:
    done = wizard(folder, "--preset", "my.toml", "--yes")
    assert (done.returncode, done.stdout) == (0, f"{folder / 'out'}\n")
    assert wizard(folder, "verify", "out").returncode == 0
    again = wizard(folder, "--preset", "my.toml", "--json")
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert [e["outcome"] for e in events if e["event"] == "StageEnded"] == ["skipped", "skipped", "done"]
    changed = wizard(folder, "--preset", "my", "--set", "context.context_window_size=128", "--output", "two")
    assert changed.returncode == 0
    config = json.loads((folder / "two" / "mlc-chat-config.json").read_text())
    assert config["context_window_size"] == 128


def test_dry_run_and_no_compile(folder: Path) -> None:
    compiling = ("--preset", "my.toml", "--set", "target.compile=true", "--dry-run")
    shown = wizard(folder, *compiling)
    assert shown.returncode == 0
    assert [shlex.split(line)[4] for line in shown.stdout.splitlines()[:3]] == [
        "convert_weight",
        "gen_config",
        "compile",
    ]
    without = wizard(folder, *compiling, "--no-compile")
    assert " compile " not in without.stdout
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--preset", "absent"], "absent"),
        (["--preset", "my.toml", "--set", "quantization.mode=q5"], "q5"),
        (["--preset", "my.toml", "--set", "model.sauce=a"], "source"),
        (["--preset", "my.toml", "--set", "model.source=./nothing"], "nothing"),
        (
            ["--preset", "my.toml", "--set", "target.device=vulkan", "--set", "target.compile=true"],
            "--no-compile",
        ),
        (["--preset", "my.toml", "--output", "my.toml"], "my.toml"),
        (["--dry-run"], "--dry-run needs --preset"),
        (["--set", "a.b=c"], "--set needs --preset"),
        (["--preset", "my.toml", "--output", "~no-such-user-anywhere/x"], "~no-such-user-anywhere"),
        (["--preset", "my.toml", "--output", ""], "--output names no folder"),
        (["--preset", "my.toml", "--output", "a" * 300], "File name too long"),
        (["--preset", "a" * 300], "no preset"),
        (["verify", "absent"], "absent"),
        (["verify", "."], "no export"),
        (["verify"], "DIR"),
        (["--colour"], "--colour"),
        (["serve"], "serve"),
    ],
)
def test_bad_requests_are_told_and_exit_with_2(folder: Path, argv: list[str], said: str) -> None:
    told = wizard(folder, *argv)
    assert told.returncode == 2
    assert told.stdout == ""
    assert said in told.stderr
    assert "Traceback" not in told.stderr


def test_a_failed_check_exits_with_1(folder: Path) -> None:
    wizard(folder, "--preset", "my.toml")
    (folder / "out" / "params_shard_0.bin").write_bytes(b"")
    told = wizard(folder, "verify", "out")
    assert told.returncode == 1
    assert "params_shard_0.bin has 0 bytes" in told.stderr


def test_no_terminal_and_no_preset_is_one_line(folder: Path) -> None:
    told = wizard(folder)
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (2, "", 1)
    assert "--preset" in told.stderr


def test_version_and_help(folder: Path) -> None:
    version = wizard(folder, "--version")
    assert version.returncode == 0
    assert version.stdout.startswith("mlc-wizard ")
    text = wizard(folder, "--help").stdout
    for option in (
        "--preset",
        "--set",
        "--output",
        "--dry-run",
        "--json",
        "--fresh",
        "--no-compile",
        "verify",
    ):
        assert option in text


def test_list_presets_names_the_shipped_ones(folder: Path) -> None:
    listed = wizard(folder, "--list-presets")
    assert listed.returncode == 0
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert {"demo", "gemma270m"} <= set(names)
    assert "cannot be used" not in listed.stdout


def test_a_locale_without_utf8(folder: Path) -> None:
    output = folder / "é"
    told = wizard(
        folder,
        *("--preset", "my.toml", "--output", str(output)),
        PYTHONUTF8="0",
        PYTHONIOENCODING="ascii",
        LC_ALL="C",
    )
    assert told.returncode == 0
    assert told.stderr.isascii()
    assert "ok convert_weight" in told.stderr
    assert told.stdout == f"{output}\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes that close")
@pytest.mark.parametrize("argv", [["--preset", "my.toml", "--json"], ["--list-presets"]])
def test_a_reader_that_goes_away(folder: Path, argv: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    told = subprocess.run(
        [sys.executable, "-m", "tui", *argv],
        cwd=folder,
        env=process.child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(writing)
    assert told.returncode == 130
    assert "Traceback" not in told.stderr
    assert "Exception" not in told.stderr


def by_shell(folder: Path, script: str, *argv: str) -> "subprocess.CompletedProcess[str]":
    """`argv` of the command as "$@" of a shell's `script`."""
    return subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "tui", *argv],
        cwd=folder,
        env=process.child_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.skipif(os.name != "posix", reason="streams that a shell closes")
@pytest.mark.parametrize(
    ("script", "argv", "code"),
    [
        ('exec "$@" <&- >&- 2>&-', ["--preset", "my.toml"], 0),
        ('exec "$@" <&- >&- 2>&-', ["--preset", "absent"], 2),
        ('exec "$@" <&- >&-', ["--version"], 0),
        ('exec "$@" <&-', ["explain", "-"], 1),
        ('exec "$@" <&-', [], 2),
        pytest.param('exec "$@" 2> /dev/full', ["--preset", "my.toml"], 0, marks=needs_full),
        pytest.param('exec "$@" > /dev/full', ["--list-presets"], 1, marks=needs_full),
        pytest.param('exec "$@" > /dev/full', ["--version"], 1, marks=needs_full),
    ],
)
def test_streams_that_are_closed_or_full(folder: Path, script: str, argv: list[str], code: int) -> None:
    """Narration may get lost, a run may not; what asked for data is told that there is none."""
    told = by_shell(folder, script, *argv)
    assert told.returncode == code
    assert "Traceback" not in told.stderr
    assert "Exception" not in told.stderr
    assert bool(told.stderr) == ("2>" not in script and bool(code or "--preset" in argv))
    if code == 0 and argv[0] == "--preset":
        assert (folder / "out" / "export-receipt.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of a shell")
def test_a_system_that_refuses_ends_a_run_as_any_failure_does(folder: Path) -> None:
    """No pipe for a stage: its events come to their end, and the words say which limit it was."""
    told = by_shell(folder, 'ulimit -n 8; exec "$@"', "--preset", "my.toml", "--json")
    assert told.returncode == 3
    assert "Traceback" not in told.stderr
    events = [json.loads(line) for line in told.stdout.splitlines()]
    assert [event["event"] for event in events[-2:]] == ["StageEnded", "RunEnded"]
    assert events[-2]["what"].startswith("Too many open files")
    assert events[-2]["remedy"]
    assert (events[-1]["outcome"], events[-1]["exit_code"]) == ("failed", 3)


@pytest.mark.skipif(os.name != "posix", reason="a folder in use cannot be removed elsewhere")
def test_a_current_folder_that_is_gone(folder: Path) -> None:
    preset = (folder / "my.toml").rename(folder.parent / f"{folder.name}.toml")
    told = by_shell(folder, 'rmdir "$PWD" && exec "$@"', "--preset", str(preset))
    assert told.returncode == 2
    assert told.stderr.startswith("error: The current folder is not there any more.")


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
def test_a_screen_that_nobody_would_see_is_not_opened(folder: Path) -> None:
    """Textual draws on stderr."""
    import pty

    ours, theirs = pty.openpty()
    told = subprocess.run(
        [sys.executable, "-m", "tui"],
        cwd=folder,
        env=process.child_environment({"TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert told.returncode == 2
    assert told.stderr.startswith("mlc-wizard: no terminal here")


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
def test_in_a_terminal(folder: Path) -> None:
    """On a dumb terminal one plain line; with a preset a live status line, and colours unless refused."""
    import pty

    def in_terminal(*argv: str, **environment: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [sys.executable, "-m", "tui", *argv],
            cwd=folder,
            env=process.child_environment({"TERM": "xterm", "COLUMNS": "60"} | environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux says so where the other side is closed
                break
            if not data:
                break
            shown += data
        os.close(ours)
        return child.wait(timeout=300), shown.decode()

    code, shown = in_terminal(TERM="dumb")
    assert code == 2
    assert shown.count("\n") == 1
    assert "--preset NAME" in shown
    code, shown = in_terminal("--preset", "my.toml", NO_COLOR="1")
    assert code == 0
    assert "\r\x1b[K" in shown
    assert "\x1b[3" not in shown
    code, shown = in_terminal("--preset", "my.toml", "--fresh", FORCE_COLOR="1", NO_COLOR="")
    assert "\x1b[32m" in shown
