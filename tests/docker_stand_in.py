"""A program `docker` for tests: containers are processes of this machine.

It takes the commands and flags that mlc-wizard uses, and no others. A container is a process in a session
of its own, as those of a daemon are: it outlives a client that is killed, whose end of its standard input
then closes. The image's entrypoint runs from this checkout; paths in a container's arguments and standard
output are those of its mounts. What is mounted read-only must be as it was when the container ends.

How it behaves, and what it was asked, is in the folder that the variable DOCKER_STAND_IN names:
behaviour.json, calls.jsonl (an argument vector a line), containers/NAME (the process id).
"""

import argparse
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.get("DOCKER_STAND_IN", "."))
INFO = {
    "ServerVersion": "28.3.2",
    "OSType": "linux",
    "Architecture": "x86_64",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "MemTotal": 8 << 30,
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
}
IMAGE = {
    "Id": "sha256:" + "5a" * 32,
    "Architecture": "amd64",
    "Os": "linux",
    "Config": {"Labels": {"org.opencontainers.image.version": "0.1.0", "mlc-wizard.mlc-llm": ""}},
}
DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"


def install(folder: Path, **behaviour: object) -> Path:
    """Put `docker` into `folder`/bin, to behave as `behaviour` says; that bin folder.

    info, image: what differs from INFO and IMAGE; image None: there is none. raw_info: all that info says.
    fails: COMMAND -> [exit code, what it says]. hangs: a command that never ends. dies: STAGE -> [exit code,
    what the client says]: its container is killed, as when a daemon dies. mounts_instead: a folder that is
    seen in place of each. instead: STAGE -> Python code that runs in its container. programs: files of the
    image -> those of this machine. environment: variables of the image.
    """
    bin_ = folder / "bin"
    bin_.mkdir(parents=True, exist_ok=True)
    (folder / "containers").mkdir(exist_ok=True)
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    program = bin_ / "docker"
    run = shlex.join([sys.executable, "-I", str(Path(__file__).resolve())])
    program.write_text(f'#!/bin/sh\nDOCKER_STAND_IN={shlex.quote(str(folder))} exec {run} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return bin_


def calls(folder: Path) -> list[list[str]]:
    """What the program in `folder` was asked, in order."""
    path = folder / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(argv: list[str]) -> int:
    behaviour = json.loads((STATE / "behaviour.json").read_text())
    with (STATE / "calls.jsonl").open("a") as file:
        file.write(json.dumps(argv) + "\n")
    command = " ".join(argv[:2]) if argv[:1] == ["image"] else argv[0]
    if command == behaviour.get("hangs"):
        time.sleep(600)
    if command in behaviour.get("fails", {}):
        code, text = behaviour["fails"][command]
        sys.stderr.write(text + "\n")
        return int(code)
    match command:
        case "info":
            assert argv[1:] == ["--format", "{{json .}}"], argv
            return _say(behaviour.get("raw_info") or {**INFO, **behaviour.get("info", {})})
        case "image inspect":
            assert argv[2:4] == ["--format", "{{json .}}"], argv
            image = behaviour.get("image", {})
            if image is None:
                sys.stderr.write(f"Error response from daemon: No such image: {argv[4]}\n")
                sys.stdout.write("\n")
                return 1
            return _say({**IMAGE, **image})
        case "rm":
            assert argv[1:2] == ["--force"], argv
            return _remove(argv[2])
        case "run":
            return _run(argv[1:], behaviour)
    sys.stderr.write(f"docker: '{command}' is not a docker command.\n")
    return 1


def _say(answer: object) -> int:
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _remove(name: str) -> int:
    record = STATE / "containers" / name
    try:
        os.killpg(int(record.read_text()), signal.SIGKILL)
    except FileNotFoundError:
        sys.stderr.write(f"Error response from daemon: No such container: {name}\n")
        return 1
    except ProcessLookupError:
        pass
    record.unlink(missing_ok=True)
    return 0


def _run(argv: list[str], behaviour: dict[str, Any]) -> int:
    parser = argparse.ArgumentParser(prog="docker run", allow_abbrev=False)
    parser.add_argument("--rm", action="store_true", required=True)
    parser.add_argument("-i", "--interactive", action="store_true")
    for flag in ("--name", "--pull", "--network", "--user", "--userns", "--security-opt", "--platform"):
        parser.add_argument(flag)
    parser.add_argument("-e", "--env", action="append", default=[])
    parser.add_argument("-v", "--volume", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    asked = parser.parse_args(argv)
    record = STATE / "containers" / asked.name
    if record.exists():
        sys.stderr.write(
            f'docker: Error response from daemon: Conflict. The container name "/{asked.name}" is '
            "already in use by container 4c01db0b339c.\n"
        )
        return 125
    mounts, frozen = {}, {}
    for volume in asked.volume:
        there, _, options = volume.partition(":")[2].partition(":")
        here = volume.partition(":")[0]
        assert Path(here).is_absolute(), volume
        assert Path(there).is_absolute(), volume
        mounts[there] = behaviour.get("mounts_instead") or here
        if options == "ro":
            frozen[here] = _seen(Path(here))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        **behaviour.get("environment", {}),
    }
    for name in asked.env:
        assert "=" not in name, name
        if name in os.environ:
            environment[name] = os.environ[name]
    if "MLC_WIZARD_CACHE" in os.environ:
        environment["MLC_WIZARD_CACHE"] = os.environ["MLC_WIZARD_CACHE"]
    # The image's interpreter has mlc-wizard; the first of this machine's PATH may be any.
    programs = {"python": sys.executable, **behaviour.get("programs", {})}
    words = [programs.get(word) or _mapped(word, mounts) for word in asked.arguments]
    stage = asked.name.rpartition("-")[2]
    if stage in behaviour.get("instead", {}):
        words = [*words[: asked.arguments.index("python")], sys.executable, "-P", "-c"]
        words.append(behaviour["instead"][stage])
    entrypoint = [sys.executable, "-P", str(ROOT / "docker" / "entrypoint.py")]
    container = subprocess.Popen(
        [*entrypoint, *words],
        stdin=subprocess.PIPE if asked.interactive else subprocess.DEVNULL,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    record.write_text(str(container.pid))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: container.send_signal(n))
    if stage in behaviour.get("dies", {}):
        os.killpg(container.pid, signal.SIGKILL)
        container.wait()
        record.unlink()
        code, text = behaviour["dies"][stage]
        sys.stderr.write(f"{text}\n")
        return int(code)
    if container.stdin is not None:
        _forward(container)
    code = container.wait()
    record.unlink(missing_ok=True)
    changed = [path for path, seen in frozen.items() if _seen(Path(path)) != seen]
    if changed:
        sys.stderr.write(f"stand-in: changed although mounted read-only: {changed}\n")
        return 99
    return 128 - code if code < 0 else code


def _forward(container: "subprocess.Popen[bytes]") -> None:
    """Standard input goes to the container in a thread; its end is the end of the container's."""

    def copy() -> None:
        assert container.stdin is not None
        try:
            while data := os.read(0, 1 << 12):
                container.stdin.write(data)
                container.stdin.flush()
        except OSError:
            pass
        container.stdin.close()

    threading.Thread(target=copy, daemon=True).start()


def _mapped(word: str, mounts: dict[str, str]) -> str:
    for there, here in mounts.items():
        if word == there or word.startswith(f"{there}/"):
            return here + word[len(there) :]
    return word


def _seen(path: Path) -> dict[str, tuple[int, int]]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
