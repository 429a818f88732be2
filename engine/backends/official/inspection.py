"""What one interpreter has of mlc_llm, found out in a child: a crash or a hang there is a finding."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import process
from engine.backends.official import checkout, cli, probe
from engine.backends.official.cli import Cli
from engine.backends.official.interpreter import AUTO, Candidate, find
from engine.errors import Cancelled, ToolchainError, WizardError

LIMIT_SECONDS = 180.0
"""How long an interpreter may take: mlc_llm imports torch, which a cold disk takes a minute for."""

_PROBE = Path(probe.__file__)
_teller: ContextVar[Callable[[str], object]] = ContextVar("teller", default=lambda _: None)
REMEDY = (
    "Make an environment of its own for it (mlc-wizard --check shows the commands), or name an interpreter "
    "that has it: --set engine.interpreter=PATH"
)
"""Where there is no mlc_llm that works."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What one candidate has. Where it cannot be used, `problem` says why, and `cli` is None.

    `packages` are the distributions that bring tvm or mlc_llm, with versions; `mixed` those among them
    that overwrite each other's package `tvm`. `source` is the folder of mlc_llm where it is no
    installed one but a checkout, whose `checkout_version` is then known.
    """

    candidate: Candidate
    python: str = ""
    machine: str = ""
    module: str = ""
    tvm: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    mixed: tuple[str, ...] = ()
    source: str = ""
    checkout_version: str = ""
    cli: Cli | None = None
    problem: WizardError | None = field(default=None, compare=False)

    @property
    def works(self) -> bool:
        """Whether stages can be run with it."""
        return self.cli is not None and self.problem is None

    @property
    def version(self) -> str:
        """The version of mlc_llm: of its distribution, or "checkout" and what the checkout tells."""
        found = (v for name, v in self.packages.items() if name.startswith(("mlc-llm", "mlc-chat")))
        return next(found, self.checkout_version)

    @property
    def versions(self) -> dict[str, str]:
        """All that an export made with it depends on, for the receipt and for taking up a run again."""
        module = {self.module: self.version or "unknown"} if self.module else {}
        return {**module, "tvm": self.tvm, **self.packages}

    @property
    def told(self) -> str:
        """One line: what it is."""
        if self.problem is not None:
            return f"{self.candidate.told}: {self.problem.what}"
        if self.cli is None:
            return f"{self.candidate.told}, which is looked into before a run"
        return f"{self.module} {self.version} with tvm {self.tvm} in {self.candidate.told}"


@contextlib.contextmanager
def told_to(tell: Callable[[str], object]) -> Iterator[None]:
    """Within the block, `tell` is called with a line before an interpreter is looked into."""
    token = _teller.set(tell)
    try:
        yield
    finally:
        _teller.reset(token)


def inspect(
    candidate: Candidate,
    *,
    argv: Sequence[str] | None = None,
    limit_seconds: float = LIMIT_SECONDS,
    cancel: threading.Event | None = None,
) -> Inspection:
    """Look into `candidate`: versions, whether tvm and mlc_llm load together, and the flags of its CLI.

    `argv` runs `probe` in it where that takes another command than for an interpreter of this machine.
    Nothing that goes wrong there is raised; it is the result's `problem`. Raises Cancelled after `cancel`.
    """
    _teller.get()(f"Looking for mlc_llm in {candidate.told}: its versions and flags, which takes seconds.")
    told = _Told()
    asked, stop = cancel or threading.Event(), threading.Event()
    deadline = threading.Timer(limit_seconds, stop.set)
    deadline.daemon = True
    argv = argv or (str(candidate.python), str(_PROBE))
    deadline.start()
    try:
        environment = environment_for(candidate) | {"COLUMNS": "20000", "NO_COLOR": "1"}
        with contextlib.closing(process.stream(argv, _Either(asked, stop), env=environment)) as items:
            for item in items:
                told.take(item)
    finally:
        deadline.cancel()
    if asked.is_set():
        raise Cancelled("Stopped.")
    return _concluded(candidate, told, limit_seconds if stop.is_set() else None)


def environment_for(candidate: Candidate) -> dict[str, str]:
    """What children of that interpreter need in their environment, for a look as for a stage.

    PYTHONSAFEPATH, as a folder mlc_llm in the current folder would stand in for the installed one.
    Our own package goes from PYTHONPATH, where `process.child_environment` has put it.
    """
    ours = Path(process.__file__).resolve().parents[1]
    stated = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(candidate.checkout)] if candidate.checkout else []
    paths += [path for path in stated if path and Path(path).resolve() != ours]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


class _Either(threading.Event):
    """Set when one of two events is."""

    def __init__(self, *events: threading.Event) -> None:
        super().__init__()
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


@dataclass
class _Told:
    """What the child said until it ended."""

    found: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""
    helps: dict[str, str] = field(default_factory=dict)
    failed: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    tvm: str | None = None
    lines: list[str] = field(default_factory=list)
    code: int = 0

    def take(self, item: process.Lines | process.Record | process.Exited) -> None:
        match item:
            case process.Lines(lines):
                self.lines = [*self.lines, *(line for line in lines if line.strip())][-20:]
            case process.Record("found", body):
                self.found = body
            case process.Record("step", body):
                self.step = str(body["name"])
            case process.Record("help", body):
                self.helps[str(body["of"])] = str(body["text"])
            case process.Record("failed", body):
                self.failed = body
            case process.Record("error", body):
                self.error = body
            case process.Record("done", body):
                self.tvm = str(body["tvm"])
            case process.Exited(code, _):
                self.code = code


def _concluded(candidate: Candidate, told: _Told, overran: float | None) -> Inspection:
    found = told.found
    modules = found.get("modules", {})
    module = next((name for name in ("mlc_llm", "mlc_chat") if modules.get(name)), "")
    distributions: Mapping[str, tuple[str, str]] = found.get("distributions", {})
    installed = any(name.startswith(("mlc-llm", "mlc-chat")) for name in distributions)
    seen: dict[str, Any] = {
        "candidate": candidate,
        "python": str(found.get("python", "")),
        "machine": str(found.get("machine", "")),
        "module": module,
        "tvm": told.tvm or "",
        "packages": {name: version for name, (version, _) in sorted(distributions.items())},
        "mixed": _mixed(distributions),
        "source": str(Path(modules[module]).parent) if module and not installed else "",
    }
    if seen["source"]:
        seen["checkout_version"] = checkout.version(Path(seen["source"]))
    before = Inspection(**seen)
    problem: WizardError | None = _problem(before, told, overran)
    if problem is None:
        try:
            return Inspection(**seen, cli=cli.read(module, told.helps))
        except WizardError as error:
            problem = error
    return Inspection(**seen, problem=problem)


def _mixed(distributions: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """The distributions that bring a package `tvm` each, into one folder."""
    bring = [n for n in distributions if n in ("apache-tvm", "tvm") or n.startswith("mlc-ai")]
    places = {distributions[name][1] for name in bring}
    return tuple(bring) if len(bring) > 1 and len(places) < len(bring) else ()


def _problem(seen: Inspection, told: _Told, overran: float | None) -> ToolchainError | None:
    """Why the interpreter cannot be used, told in the order of the steps."""
    python = seen.candidate.python
    last = f" Its last line: {told.lines[-1]}" if told.lines else ""
    if not told.found:
        if overran is not None:
            return ToolchainError(
                f"{python} said nothing for {overran:.0f} seconds.", why=last.strip(), remedy=REMEDY
            )
        why = str(told.error["what"]) if told.error else f"It ended with exit code {told.code}.{last}"
        return ToolchainError(f"{python} is no Python that runs.", why=why, remedy=REMEDY)
    if not seen.module:
        return ToolchainError(f"{python} has no mlc_llm.", remedy=REMEDY)
    if seen.mixed:
        what = " and ".join(f"{name} {seen.packages[name]}" for name in seen.mixed)
        return ToolchainError(
            f"The environment of {python} is mixed: {what} are both in it.",
            why="Each brings a package tvm, so the one that was installed last has overwritten files of the "
            "other.",
            remedy=f"Keep the two apart. {REMEDY}",
        )
    if not told.helps and not told.step:
        return ToolchainError(
            f"{python} has {seen.module} but no tvm.",
            why="The wheels of mlc_llm come in pairs with mlc-ai wheels of the same name, which bring tvm.",
            remedy=REMEDY,
        )
    if told.tvm is not None:
        return None
    return _broken(seen, told, overran, last)


def _broken(seen: Inspection, told: _Told, overran: float | None, last: str) -> ToolchainError:
    """A step that was begun and not ended."""
    python, packages = seen.candidate.python, ", ".join(f"{n} {v}" for n, v in seen.packages.items())
    doing = (
        f"`python -m {seen.module} {told.step}`" if told.step.endswith("--help") else f"`import {told.step}`"
    )
    pair = (
        f"Found: {packages or 'no distribution'}. mlc_llm and its tvm have to be of one day, or built from "
        "one checkout."
    )
    if overran is not None:
        return ToolchainError(
            f"{doing} of {python} did not end within {overran:.0f} seconds.",
            why=last.strip(),
            remedy=f"Try it in a terminal. {REMEDY}",
        )
    if told.failed is not None:
        message = (str(told.failed["message"]).strip().splitlines() or [""])[0]
        kind = told.failed["kind"]
        return ToolchainError(
            f"{doing} of {python} fails: {kind}: {message}",
            why=pair if kind not in ("ModuleNotFoundError",) else f"Found: {packages or 'no distribution'}.",
            remedy=REMEDY,
        )
    signal = f"signal {told.code - 128}" if told.code > 128 else f"exit code {told.code}"
    return ToolchainError(f"{doing} of {python} ended with {signal}.", why=f"{pair}{last}", remedy=REMEDY)


_known: dict[Candidate, tuple[float, Inspection]] = {}
_lock = threading.Lock()


def known(candidate: Candidate) -> Inspection | None:
    """What was found out about `candidate` before in this process, if its environment is as it was then."""
    with _lock:
        stamp, inspection = _known.get(candidate, (0.0, None))
    return inspection if inspection is not None and stamp == _stamp(candidate) else None


def look(interpreter: str = AUTO, *, cancel: threading.Event | None = None) -> list[Inspection]:
    """The candidates for `interpreter`, looked into one after the other up to the first that works.

    Takes seconds for each, once in a process. Raises Cancelled after `cancel`.
    """
    looked = []
    for candidate in find(interpreter):
        inspection = known(candidate)
        if inspection is None:
            inspection = inspect(candidate, cancel=cancel)
            with _lock:
                _known[candidate] = (_stamp(candidate), inspection)
        looked.append(inspection)
        if inspection.works:
            break
    return looked


def _stamp(candidate: Candidate) -> float:
    """Changes when packages are installed or removed: the newest mtime of its site-packages."""
    root = candidate.python.parent.parent
    places = (*root.glob("lib/python3*/site-packages"), root / "Lib" / "site-packages", candidate.python)
    newest = 0.0
    for place in places:
        with contextlib.suppress(OSError):
            newest = max(newest, place.stat().st_mtime)
    return newest
