"""Run probes, several at a time, in children, and yield findings as they come.

A probe that crashes, hangs or says nothing sensible is a finding about its part, never a failure of
the check.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engine import process
from engine.errors import ToolchainError
from engine.explain.match import KNOWN, Matcher
from engine.explain.match import Finding as KnownFailure
from engine.shell import shell_line
from engine.toolchain.finding import Finding, Remedy, from_json
from engine.toolchain.probe import Probe
from engine.toolchain.programs import clip, signal_name

AT_ONCE = min((os.cpu_count() or 1) + 2, 12)
"""Children at a time: some wait for what does not answer, and many at work would make each look slow."""
LONG = 60.0
"""A limit of so many seconds is that of a probe which may well take some: it begins before the others."""


@dataclass(frozen=True)
class Started:
    """The probe `id` is at work."""

    id: str


@dataclass(frozen=True)
class Found:
    """A probe has ended."""

    finding: Finding


def command(*probes: Probe, seconds: float | None = None) -> tuple[str, ...]:
    """The command that runs `probes`, all of one group, in one process."""
    limit = () if seconds is None else ("--seconds", str(seconds))
    program = (sys.executable, "-P", "-m", "engine.toolchain")
    return (*program, *(probe.id for probe in probes), "--group", probes[0].group, *limit)


def check(
    probes: Sequence[Probe],
    cancel: threading.Event,
    *,
    seconds: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Generator[Started | Found]:
    """Run `probes` and yield Started and Found for each, in the order in which they come.

    `seconds` is the limit of each child in place of its own, `env` is added to the environment. After
    `cancel`, or when the generator is closed, the children are ended and nothing more is found.
    """
    events: queue.Queue[Started | Found | None] = queue.Queue()
    stop = _Stop(cancel)

    def one(child: Sequence[Probe]) -> None:
        untold = {probe.id: probe for probe in child}
        try:
            if not stop.is_set():
                for name in untold:
                    events.put(Started(name))
                limit = seconds or max(probe.seconds for probe in child)
                for finding in _run(child, stop, limit, env):
                    del untold[finding.id]
                    events.put(Found(finding))
        except Exception as error:  # no row may be lost for a fault of ours
            fault = f"could not be looked at: {type(error).__name__}: {error}"
            for probe in untold.values():
                events.put(Found(_broken(probe, fault, None)))
        finally:
            events.put(None)

    children = in_children(probes)
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="probe") as pool:
        try:
            for child in children:
                pool.submit(one, child)
            ended = 0
            while ended < len(children):
                event = events.get()
                if event is None:
                    ended += 1
                elif not stop.is_set():
                    yield event
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def in_children(probes: Sequence[Probe]) -> list[list[Probe]]:
    """The probes of each child; first those that may take long, then in the order in which they are shown."""
    shared: dict[str, list[Probe]] = {}
    for probe in probes:
        shared.setdefault(probe.child or probe.id, []).append(probe)
    children = [sorted(child, key=lambda probe: probe.turn) for child in shared.values()]
    return sorted(children, key=lambda child: max(probe.seconds for probe in child) < LONG)


class _Stop(threading.Event):
    """Set, or its `parent` is, or the time is up."""

    def __init__(self, parent: threading.Event, deadline: float | None = None) -> None:
        super().__init__()
        self._parent = parent
        self._deadline = deadline

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def is_set(self) -> bool:
        """See the class."""
        return super().is_set() or self._parent.is_set() or self.late


def _run(
    probes: Sequence[Probe], cancel: _Stop, seconds: float, env: Mapping[str, str] | None
) -> Iterator[Finding]:
    """What `probes` find, in one child, each once; nothing more once it was cancelled."""
    untold = {probe.id: probe for probe in probes}
    stop = _Stop(cancel, time.monotonic() + seconds)
    matcher = Matcher(known for known in KNOWN if issubclass(known.error, ToolchainError))
    last, code = "", 0
    argv = command(*probes, seconds=seconds)
    try:
        with contextlib.closing(process.stream(argv, stop, env=env)) as items:
            for item in items:
                match item:
                    case process.Record("finding", body):
                        told = None
                        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                            told = from_json(body)
                        if told is not None and told.id in untold:
                            del untold[told.id]
                            yield told
                    case process.Record("failed", {"id": name}) if name in untold:
                        what = f"could not be looked at: {clip(last.strip())}"
                        yield _broken(untold.pop(name), what, matcher.cause())
                    case process.Record("error", body):
                        last = str(body.get("what", ""))
                    case process.Lines(lines):
                        matcher.feed(lines)
                        last = next((line for line in reversed(lines) if line.strip()), last)
                    case process.Exited(code, _):
                        pass
    except OSError as error:
        for probe in untold.values():
            yield _broken(probe, f"cannot be looked at: {error.strerror or error}", None)
        return
    if cancel.is_set():
        return
    said = f": {clip(last.strip())}" if last.strip() else ""
    if stop.late:
        what = f"no answer within {seconds:g} s{said}"
    elif code > 128 or code < 0:
        what = f"crashed ({signal_name(code)}){said}"
    else:
        what = f"ended with exit code {code}{said}"
    for probe in untold.values():
        yield _broken(probe, what, matcher.cause())


def _broken(probe: Probe, found: str, cause: KnownFailure | None) -> Finding:
    """What is said in place of a probe that could not speak for itself."""
    if cause is not None:
        why = f"{cause.known.title} {cause.known.cause}"
        return probe.finding(probe.at_worst, found, why=why, remedy=Remedy(told=cause.known.remedy))
    remedy = Remedy(
        told="See all that it says: run it by itself, without a limit.",
        commands=(shell_line(command(probe)),),
    )
    return probe.finding(probe.at_worst, found, remedy=remedy)
