"""What Docker is here: its client, its daemon, the image.

`docker info` and `docker image inspect` are asked, both with a time limit, and their answers kept for a
while: screens ask for every choice that they show. Podman's `docker` answers in other words, which are
understood, too.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.errors import ToolchainError, WizardError
from engine.explain import KNOWN, Matcher
from engine.explain.containers import BUILD

IMAGE = "mlc-compiler"
"""The name that the README builds the image under."""
MLC_LLM_LABEL = "mlc-wizard.mlc-llm"
"""The label of an image that says which wheels of mlc_llm are in it."""
LIMIT_SECONDS = 10.0
KEPT_SECONDS = 20.0
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Processors as the platforms of images are called, by their names elsewhere."""

_ENVIRONMENT = ("PATH", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")
_ASKING = threading.Lock()
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A daemon that answers, and runs Linux containers.

    `architecture` is the processor's, as image platforms are named: amd64, arm64. `memory` is in bytes.
    `desktop`, `rootless`, `remapped`: how a container's users are those of this machine.
    """

    version: str
    architecture: str
    memory: int
    podman: bool
    desktop: bool
    rootless: bool
    remapped: bool
    selinux: bool


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that the daemon has. `mlc_llm` names the wheels of mlc_llm in it, empty where it has none."""

    name: str
    id: str
    architecture: str
    ours: bool
    version: str
    mlc_llm: str


def client() -> str | None:
    """Where the program `docker` is, or None."""
    return shutil.which("docker")


class Unasked(ToolchainError):
    """Nobody has asked Docker yet, and this caller does not wait for its answer."""


def daemon(*, wait: bool = True) -> Daemon:
    """The daemon that `docker` talks to.

    Raises ToolchainError where there is no client, where the daemon does not answer or does not let this
    user in, and where it runs Windows containers. Without `wait`, as on a screen, the last answer counts,
    however old; Unasked is raised where there is none.
    """
    return _KEPT.get(("daemon",), _look_at_daemon, wait=wait or client() is None)


def image(name: str = IMAGE, *, wait: bool = True) -> Image:
    """The image `name`. Raises ToolchainError where the daemon lacks it, or as `daemon` does."""
    return _KEPT.get(("image", name), lambda: _look_at_image(name), wait=wait or client() is None)


def ask() -> None:
    """Have daemon and image looked at, without waiting for it; once at a time."""

    def look() -> None:
        try:
            with contextlib.suppress(WizardError):
                image()
        finally:
            _ASKING.release()

    if _ASKING.acquire(blocking=False):
        threading.Thread(target=look, daemon=True).start()


def forget() -> None:
    """Ask anew next time."""
    _KEPT.clear()


def told(stderr: str, what: str) -> WizardError:
    """The error that `stderr`, the last words of a docker command, tells; `what` where it is not known."""
    matcher = Matcher(known for known in KNOWN if not known.backends or "docker" in known.backends)
    lines = [line for line in stderr.splitlines() if line.strip()]
    matcher.feed(lines)
    if cause := matcher.cause():
        return cause.known.error(cause.known.title, why=cause.known.cause, remedy=cause.known.remedy)
    return ToolchainError(what, why=lines[-1] if lines else "It said nothing.", remedy="Try: docker info")


def _look_at_daemon() -> Daemon:
    if client() is None:
        raise ToolchainError(
            "Docker is not installed here: there is no program docker.",
            remedy="Install it (https://docs.docker.com/get-docker/), or leave engine.backend out: the "
            "embedded backend needs no container.",
        )
    done = _ask("info", "--format", "{{json .}}")
    answer = _parsed(done.stdout)
    if errors := answer.get("ServerErrors"):
        raise told("\n".join(map(str, errors)), "Docker's daemon reports an error.")
    if "host" in answer:
        return _podman(answer)
    if done.returncode != 0 or not answer.get("ServerVersion"):
        raise told(done.stderr, "docker info failed.")
    if answer.get("OSType") == "windows":
        raise ToolchainError(
            "Docker runs Windows containers.",
            why="The image is one of Linux.",
            remedy='In Docker Desktop\'s menu: "Switch to Linux containers".',
        )
    options = " ".join(map(str, answer.get("SecurityOptions") or ()))
    architecture = str(answer.get("Architecture", ""))
    return Daemon(
        version=str(answer["ServerVersion"]),
        architecture=ARCHITECTURES.get(architecture, architecture),
        memory=int(answer.get("MemTotal") or 0),
        podman=False,
        desktop=answer.get("OperatingSystem") == "Docker Desktop",
        rootless="name=rootless" in options,
        remapped="name=userns" in options,
        selinux="name=selinux" in options,
    )


def _podman(answer: dict[str, Any]) -> Daemon:
    host = answer["host"]
    security = host.get("security") or {}
    return Daemon(
        version=str((answer.get("version") or {}).get("Version", "")),
        architecture=str(host.get("arch", "")),
        memory=int(host.get("memTotal") or 0),
        podman=True,
        desktop=bool(host.get("serviceIsRemote")),
        rootless=bool(security.get("rootless")),
        remapped=False,
        selinux=bool(security.get("selinuxEnabled")),
    )


def _look_at_image(name: str) -> Image:
    here = daemon()
    done = _ask("image", "inspect", "--format", "{{json .}}", name)
    answer = _parsed(done.stdout)
    if done.returncode != 0 or "Id" not in answer:
        error = told(done.stderr, f"docker image inspect {name} failed.")
        if "such" in done.stderr or "not known" in done.stderr:
            error = ToolchainError(
                f"Docker {here.version} has no image {name}.",
                why="It is built once, on this machine; no registry has it.",
                remedy=f"In a checkout of mlc-wizard: {BUILD}",
            )
        raise error
    labels = (answer.get("Config") or {}).get("Labels") or {}
    return Image(
        name=name,
        id=str(answer["Id"]),
        architecture=str(answer.get("Architecture", "")),
        ours=MLC_LLM_LABEL in labels,
        version=str(labels.get("org.opencontainers.image.version", "")),
        mlc_llm=str(labels.get(MLC_LLM_LABEL, "")),
    )


def _ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `docker ARGUMENTS`. Raises ToolchainError where it cannot be started or does not end in time."""
    flags: dict[str, Any] = {}
    if sys.platform == "win32":
        flags["creationflags"] = subprocess.CREATE_NO_WINDOW
    try:
        return subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_SECONDS,
            encoding="utf-8",
            errors="replace",
            check=False,
            **flags,
        )
    except subprocess.TimeoutExpired:
        raise ToolchainError(
            f"docker {arguments[0]} gave no answer within {LIMIT_SECONDS:.0f} s.",
            why="The daemon hangs, or is on a machine that is not reached (docker context ls, DOCKER_HOST).",
            remedy="Restart Docker, then try: docker info",
        ) from None
    except OSError as error:
        raise ToolchainError(
            f"The program docker cannot be started: {error.strerror or error}.",
            remedy="Install Docker again: https://docs.docker.com/get-docker/",
        ) from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    if isinstance(answer, list) and len(answer) == 1:  # Podman's image inspect
        answer = answer[0]
    return answer if isinstance(answer, dict) else {}


class _Kept:
    """Answers, and errors alike, for a few seconds and for one daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[Sequence[object], tuple[float, Any]] = {}

    def get(self, question: Sequence[str], ask: Callable[[], _T], *, wait: bool) -> _T:
        key = (*question, *map(os.environ.get, _ENVIRONMENT))
        with self._lock:
            since, answer = self._answers.get(key, (0.0, None))
        if answer is None and not wait:
            raise Unasked("Docker was not asked yet.")
        if answer is None or (wait and time.monotonic() - since > KEPT_SECONDS):
            try:
                answer = ask()
            except WizardError as error:
                answer = error
            with self._lock:
                self._answers[key] = time.monotonic(), answer
        if isinstance(answer, WizardError):
            raise type(answer)(answer.what, why=answer.why, remedy=answer.remedy, fix=answer.fix)
        return answer  # type: ignore[no-any-return]  # of one question, always of one type

    def clear(self) -> None:
        with self._lock:
            self._answers.clear()


_KEPT = _Kept()
