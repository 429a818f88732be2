"""`python -P -m engine.backends.docker run ...`: `docker run ...`, and no container that outlives it.

Killing a docker client does not end its container. This one is started with `-i`: the container's standard
input closes when the client goes, be it of kill -9, and the supervisor that the image runs a stage under ends
it then. Asked to end, this program closes the input, and two seconds later removes the container by its
name. One of that name that is still there, from a machine that lost its power, is removed first.

What the container says is passed on with the paths of this machine in place of its own.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import IO, Any

from engine.narrate import RECORD_SEPARATOR

GRACE_SECONDS = 2.0
"""How long a container may take to end by itself: less than the runner waits before it kills this client."""
REMOVE_SECONDS = 20.0
KILLED = 137
EXIT_NOT_STARTED = 127


def main(arguments: Sequence[str]) -> int:
    """Run `docker ARGUMENTS`; its exit code."""
    name = arguments[arguments.index("--name") + 1]
    remove(name)
    settings: dict[str, Any] = {}
    if sys.platform == "win32":
        settings["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        client = subprocess.Popen(
            ["docker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **settings,
        )
    except OSError as error:
        body = {"what": f"docker cannot be started: {error.strerror or error}.", "why": "", "remedy": ""}
        _say(RECORD_SEPARATOR + json.dumps({"error": {**body, "exit_code": 3}}))
        return EXIT_NOT_STARTED
    assert client.stdout is not None
    ending = threading.Event()

    def end() -> None:
        assert client.stdin is not None
        with contextlib.suppress(OSError):
            client.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(timeout=GRACE_SECONDS)
            return
        remove(name)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if not ending.is_set():
            ending.set()
            threading.Thread(target=end, daemon=True).start()

    for known in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, known):
            signal.signal(getattr(signal, known), on_signal)
    places = places_of(arguments)
    for line in lines(client.stdout):
        sys.stdout.buffer.write(on_this_machine(line, places))
        sys.stdout.buffer.flush()
    code = client.wait()
    if ending.is_set():
        remove(name)  # a client that was ended early may have left it created and not started
    elif code == KILLED:
        _say("The container was ended with exit code 137.")
    return 128 - code if code < 0 else code


def remove(name: str) -> None:
    """Kill and remove the container `name`, if there is one; not ended by what ends this process."""
    settings: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        settings = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["docker", "rm", "--force", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=REMOVE_SECONDS,
            check=False,
            **settings,
        )


def places_of(arguments: Sequence[str]) -> list[tuple[bytes, str]]:
    """The container's paths and this machine's, from the `-v` among `arguments`."""
    found = []
    for flag, value in itertools.pairwise(arguments):
        if flag == "-v":
            here, _, there = value.removesuffix(":ro").rpartition(":")
            found.append((os.fsencode(there), here))
    return found


def lines(stream: IO[bytes]) -> Iterator[bytes]:
    """What `stream` says, cut after line feeds and returns, as soon as it is said."""
    rest = b""
    while data := os.read(stream.fileno(), 1 << 16):
        *whole, rest = re.split(rb"(?<=[\r\n])", rest + data)
        yield from whole
    if rest:
        yield rest


def on_this_machine(line: bytes, places: Sequence[tuple[bytes, str]]) -> bytes:
    """`line` with the container's paths replaced; in a record as JSON writes them."""
    is_record = RECORD_SEPARATOR.encode() in line
    for there, here in places:
        path = json.dumps(here)[1:-1].encode() if is_record else os.fsencode(here)
        pieces = re.split(rb"(?<![\w.-])" + re.escape(there) + rb"(?![\w.-])", line)
        line = path.join(pieces)
    return line


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
