"""engine.process and engine.supervisor, on real children."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import process
from engine.process import Exited, Lines, Record, clean, stream

POSIX = os.name == "posix"


def python(code: str) -> list[str]:
    return [sys.executable, "-P", "-c", code]


def collect(
    code: str, cancel: threading.Event | None = None, env: Mapping[str, str] | None = None
) -> tuple[list[str], list[Record], Exited]:
    items = list(stream(python(code), cancel or threading.Event(), env=env))
    lines = [line for item in items if isinstance(item, Lines) for line in item.lines]
    assert isinstance(items[-1], Exited)
    return lines, [item for item in items if isinstance(item, Record)], items[-1]


def eventually(happened: Callable[[], bool]) -> None:
    """Wait until `happened`; the limit is far above what any machine needs."""
    limit = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def number_in(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_lines_of_both_streams_and_exit_code() -> None:
    lines, _, exited = collect(
        "import sys; print('one'); print('two', file=sys.stderr); print('three', end=''); sys.exit(7)"
    )
    assert lines == ["one", "two", "three"]
    assert exited == Exited(7, cancelled=False)


def test_a_burst_arrives_whole_in_order_and_in_batches() -> None:
    batches = [
        item.lines
        for item in stream(python("for i in range(200_000): print('line', i)"), threading.Event())
        if isinstance(item, Lines)
    ]
    assert [line for batch in batches for line in batch] == [f"line {i}" for i in range(200_000)]
    assert len(batches) < 2000


def test_progress_of_a_tick_is_collapsed_and_other_records_are_not() -> None:
    code = """
import json, os
def record(**body): return '\\x1e' + json.dumps(body) + '\\n'
text = ''.join(record(progress={'done': i, 'total': 9}) for i in range(10))
text += record(check={'name': 'a'}) + record(check={'name': 'b'})
text += 'said\\n' + 'x\\x1e{"error": {"what": "w"}}\\n'
os.write(2, text.encode())
"""
    lines, records, _ = collect(code)
    assert lines == ["said", "x"]
    progress = [r for r in records if r.kind == "progress"]
    assert progress[-1].body == {"done": 9, "total": 9}
    assert len(progress) < 10
    assert [r.body for r in records if r.kind != "progress"] == [{"name": "a"}, {"name": "b"}, {"what": "w"}]


@pytest.mark.parametrize("body", ["not json", "[1]", '{"progress": 3}', '{"a": {}, "b": {}}', ""])
def test_a_broken_record_is_a_line(body: str) -> None:
    lines, records, _ = collect(f"print('\\x1e' + {body!r})")
    assert (lines, records) == ([body], [])


def test_garbage_bytes_are_replaced_not_fatal() -> None:
    code = "import os; os.write(1, bytes(range(256)) * 50); os.write(1, b'\\nend\\n')"
    lines, _, exited = collect(code)
    assert lines[-1] == "end"
    assert exited.code == 0
    assert not any(ord(c) < 32 and c != "\t" for line in lines for c in line)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("windows\r", "windows"),
        (" 10%\r 50%\r100%", "100%"),
        (" 10%\r100%\r", "100%"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2K\x1b[1Gdone\x1b(B", "done"),
        ("tab\tstays\x08\x00", "tab\tstays"),
        ("é \x1b", "é "),
    ],
)
def test_clean(raw: str, shown: str) -> None:
    assert clean(raw) == shown


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 7),
)
def test_lines_survive_any_cut(texts: list[str], end: str, size: int) -> None:
    data = "".join(text + end for text in texts).encode()
    splitter = process._Splitter()
    got: list[str] = []
    for start in range(0, len(data), size):
        got += splitter.feed(data[start : start + size])
    got += splitter.feed(b"", final=True)
    assert [line.rstrip("\r") for line in got] == texts


def test_an_endless_progress_bar_takes_no_memory() -> None:
    splitter = process._Splitter()
    for i in range(1000):
        assert splitter.feed(f"\r{i} ".encode() + b"x" * 1000) == []
    assert len(splitter._rest) < 3000
    assert clean(splitter.feed(b"\n")[0]).startswith("999 x")


def test_a_line_without_end_is_cut_at_its_limit() -> None:
    splitter = process._Splitter()
    got = [line for _ in range(100) for line in splitter.feed(b"x" * 5000)]
    assert sum(map(len, got)) + len(splitter._rest) == 500_000
    assert len(splitter._rest) <= 1 << 16


def test_children_find_engine_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing in the current folder stands in for a module."""
    (tmp_path / "engine.py").write_text("raise SystemExit('the wrong engine')")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    lines, _, exited = collect("import engine.process as p; print(p.__file__)")
    assert exited.code == 0
    assert Path(lines[0]) == Path(process.__file__)


def test_environment_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    names = ("PYTHONUNBUFFERED", "MLC_WIZARD_RECORDS", "PYTHONPATH", "MINE")
    code = f"import os; print(*[os.environ[n] for n in {names}], sep='\\n')"
    lines, _, _ = collect(code, env={"MINE": "é"})
    assert lines[:2] == ["1", "1"]
    assert lines[2].split(os.pathsep)[-1] == "/somewhere"
    assert lines[3] == "é"


def test_a_program_that_does_not_exist_is_an_error_record() -> None:
    items = list(stream(["/no/such/program"], threading.Event()))
    (record,) = (item for item in items if isinstance(item, Record))
    assert record.kind == "error"
    assert "/no/such/program cannot be started" in record.body["what"]
    assert items[-1] == Exited(127, cancelled=False)


@pytest.mark.skipif(not POSIX, reason="signals")
def test_a_child_killed_by_a_signal_says_which() -> None:
    _, _, exited = collect("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert exited.code == 128 + signal.SIGSEGV


FAMILY = """
import pathlib, signal, subprocess, sys, time
if {stubborn}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', {grandchild!r}])
pathlib.Path({child!r}).write_text(f'{{child.pid}}\\n')
print('ready')
time.sleep(600)
"""
GRANDCHILD = "import signal, time; {ignore}; time.sleep(600)"


def family(folder: Path, *, stubborn: bool) -> tuple[str, Path]:
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else "pass"
    note = folder / "grandchild"
    code = FAMILY.format(stubborn=stubborn, grandchild=GRANDCHILD.format(ignore=ignore), child=str(note))
    return code, note


def until_ready(items: Iterator[Lines | Record | Exited]) -> None:
    for item in items:
        if isinstance(item, Lines) and "ready" in item.lines:
            return
    pytest.fail("the child ended early")


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancel_ends_the_child_and_what_it_started(tmp_path: Path, stubborn: bool) -> None:
    code, note = family(tmp_path, stubborn=stubborn)
    cancel = threading.Event()
    items = stream(python(code), cancel)
    until_ready(items)
    cancel.set()
    (*_, last) = items
    assert isinstance(last, Exited)
    assert last.cancelled
    assert last.code != 0
    grandchild = number_in(note)
    eventually(lambda: is_gone(grandchild))


def test_closing_the_generator_ends_the_child(tmp_path: Path) -> None:
    code, note = family(tmp_path, stubborn=False)
    items = stream(python(code), threading.Event())
    until_ready(items)
    grandchild = number_in(note)
    items.close()  # type: ignore[attr-defined]
    eventually(lambda: is_gone(grandchild))


def test_cancel_while_the_child_floods_its_output() -> None:
    cancel = threading.Event()
    items = stream(python("print('ready')\nwhile True: print('x' * 1000)"), cancel)
    until_ready(items)
    cancel.set()
    (*_, last) = items
    assert isinstance(last, Exited)
    assert last.cancelled


def test_a_background_process_is_not_left_behind(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"""
import pathlib, subprocess, sys
p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
pathlib.Path({str(note)!r}).write_text(f'{{p.pid}}\\n')
"""
    _, _, exited = collect(code)
    assert exited == Exited(0, cancelled=False)
    left = number_in(note)
    eventually(lambda: is_gone(left))


@pytest.mark.skipif(not POSIX, reason="sessions")
def test_an_escaped_process_cannot_hold_up_the_end(tmp_path: Path) -> None:
    """A daemon that left the group keeps the pipe open; its parent's end is told all the same."""
    note = tmp_path / "pid"
    code = f"""
import pathlib, subprocess, sys
p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
pathlib.Path({str(note)!r}).write_text(f'{{p.pid}}\\n')
"""
    _, _, exited = collect(code)
    assert exited.code == 0
    os.kill(number_in(note), signal.SIGKILL)


@pytest.mark.parametrize("stubborn", [False, True])
def test_kill_9_of_the_parent_leaves_nothing(tmp_path: Path, stubborn: bool) -> None:
    code, note = family(tmp_path, stubborn=stubborn)
    parent_code = f"""
import threading
from engine.process import stream
for item in stream({python(code)!r}, threading.Event()): pass
"""
    parent = subprocess.Popen(python(parent_code), env=process.child_environment())
    grandchild = number_in(note)
    family_pids = [p.pid for p in psutil.Process(parent.pid).children(recursive=True)]
    assert grandchild in family_pids
    assert len(family_pids) >= 3
    parent.kill()
    parent.wait()
    eventually(lambda: all(is_gone(pid) for pid in family_pids))
