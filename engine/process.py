"""One child process: streamed in batches, cancellable, and nothing left behind.

The child runs under `engine.supervisor`, which ends it when the pipe that this side holds closes;
so closing the generator, a cancel and the death of this process are one and the same thing.
"""

import codecs
import errno
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import supervisor
from engine.narrate import RECORD_SEPARATOR, RECORDS_VARIABLE

TICK_SECONDS = 0.1
"""How long lines are gathered before they are handed on together."""
GRACE_SECONDS = 3.0
"""How long a cancelled child may take to end before it is killed."""

_LONGEST_LINE = 1 << 16
_DRAIN_SECONDS = 1.0
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS and other strings: titles, links
    r"|[ -/]*[0-~])?"  # two-character sequences; a lone escape goes too
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Lines:
    """Lines of stdout and stderr together, in order, without terminal codes and line ends."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A record of `engine.narrate`: `kind` is its only key (progress, error, ...)."""

    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Exited:
    """The child is gone. `code` is 128 + n for signal n; `cancelled`: it was told to go."""

    code: int
    cancelled: bool


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our own environment with what children need: unbuffered UTF-8 output, records, and `engine`.

    Children run with `-P`, so that no file in the current folder can stand in for a module; where
    this package is not installed but run from a checkout, they find it through PYTHONPATH.
    """
    environment = dict(os.environ)
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", RECORDS_VARIABLE: "1"}
    root = Path(__file__).resolve().parents[1]
    if root.name not in ("site-packages", "dist-packages"):
        paths = (str(root), environment.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment | dict(extra or {})


def stream(
    argv: Sequence[str], cancel: threading.Event, *, env: Mapping[str, str] | None = None
) -> Generator[Lines | Record | Exited]:
    """Run `argv` and yield what it says, about every 0.1 s, then one Exited.

    Raises OSError where the system starts no more processes or threads.
    `cancel` ends it: asked to terminate, killed 3 s later. Of several progress records within one
    tick only the last is handed on. `env` is added to `child_environment()`.
    """
    child = _start(argv, env)
    assert child.stdin is not None
    assert child.stdout is not None
    chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
    reader = threading.Thread(target=_pump, args=(child.stdout.fileno(), chunks), daemon=True)
    try:
        reader.start()
    except RuntimeError as error:  # no more threads; the supervisor sees its pipe close
        child.communicate()
        raise OSError(errno.EAGAIN, str(error)) from None
    splitter = _Splitter()
    cancelled = False
    gone_since: float | None = None
    try:
        open_ = True
        while open_:
            if cancel.is_set() and not cancelled:
                cancelled = True
                child.stdin.close()
            lines, open_ = _gather(chunks, splitter)
            yield from _told(lines)
            if child.poll() is not None:
                # A process that left the stage's group may hold its output open for ever.
                gone_since = gone_since or time.monotonic()
                open_ = open_ and time.monotonic() - gone_since < _DRAIN_SECONDS
        code = child.wait()
        yield Exited(128 - code if code < 0 else code, cancelled)
    finally:
        _end(child, reader, chunks)


def _start(argv: Sequence[str], env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    # -I -S: neither the user's PYTHON variables nor site-packages slow down or change it.
    command = [sys.executable, "-I", "-S", supervisor.__file__, str(GRACE_SECONDS), *argv]
    settings: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        settings = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment(env),
        **settings,
    )


def _pump(descriptor: int, chunks: "queue.Queue[bytes | None]") -> None:
    """Read until the end; a thread, because Windows cannot wait for several pipes at once."""
    try:
        while data := os.read(descriptor, 1 << 16):
            chunks.put(data)
    except OSError:
        pass
    chunks.put(None)


def _gather(chunks: "queue.Queue[bytes | None]", splitter: "_Splitter") -> tuple[list[str], bool]:
    """The lines of one tick, and whether more may come."""
    lines: list[str] = []
    deadline = time.monotonic() + TICK_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            chunk = chunks.get(timeout=left)
        except queue.Empty:
            break
        if chunk is None:
            return lines + splitter.feed(b"", final=True), False
        lines += splitter.feed(chunk)
    return lines, True


def _told(lines: Sequence[str]) -> Iterator[Lines | Record]:
    """`lines` as plain lines first, then the records among them, the last progress only."""
    plain: list[str] = []
    records: list[Record] = []
    for line in lines:
        before, mark, text = line.partition(RECORD_SEPARATOR)
        record = _record(text) if mark else None
        if record is None:
            plain.append(clean(line))
            continue
        if before:
            plain.append(clean(before))
        if record.kind == "progress":
            records = [r for r in records if r.kind != "progress"]
        records.append(record)
    if plain:
        yield Lines(tuple(plain))
    yield from records


def _record(text: str) -> Record | None:
    try:
        ((kind, body),) = json.loads(text).items()
    except (ValueError, AttributeError):
        return None
    return Record(kind, body) if isinstance(body, dict) else None


def clean(line: str) -> str:
    """What a terminal would show of `line`: the text after the last carriage return, no codes."""
    shown = line.rstrip("\r").rpartition("\r")[2]
    return _CONTROLS.sub("", _ESCAPES.sub("", shown))


class _Splitter:
    """Bytes to lines; a character or a line cut in two waits for its rest."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        *lines, rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        # A progress bar never ends its line: keep what it shows now. A return at the very end
        # may yet turn out to be half of a line end.
        rest = rest[rest.rfind("\r", 0, max(len(rest) - 1, 0)) + 1 :]
        if rest and (final or len(rest) > _LONGEST_LINE):
            lines.append(rest)
            rest = ""
        self._rest = rest
        return lines


def _end(
    child: subprocess.Popen[bytes], reader: threading.Thread, chunks: "queue.Queue[bytes | None]"
) -> None:
    """Close the pipe that keeps the child alive and see it go."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    deadline = time.monotonic() + GRACE_SECONDS + _DRAIN_SECONDS
    # Its output is thrown away meanwhile: a child stuck in a write could not end in good order.
    while time.monotonic() < deadline and (child.poll() is None or reader.is_alive()):
        if child.poll() is not None:
            deadline = min(deadline, time.monotonic() + _DRAIN_SECONDS)
        try:
            chunks.get(timeout=0.02)
        except queue.Empty:
            continue
    if child.poll() is None:
        child.kill()
        child.wait()
    if not reader.is_alive():
        child.stdout.close()
