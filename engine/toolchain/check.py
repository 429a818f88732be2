"""Run probes, several at a time, each in a child of its own, and yield findings as they come.

A probe that crashes, hangs or says nothing sensible is a finding about its part, never a failure of
the check.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
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
"""Probes at a time: some wait for what does not answer, and many at work would make each look slow."""


@dataclass(frozen=True)
class Started:
    """The probe `id` is at work."""

    id: str


@dataclass(frozen=True)
class Found:
    """A probe has ended."""

    finding: Finding


def command(probe: Probe, seconds: float | None = None) -> tuple[str, ...]:
    """The command that runs `probe` by itself."""
    limit = () if seconds is None else ("--seconds", str(seconds))
    return (sys.executable, "-P", "-m", "engine.toolchain", probe.id, *limit)


def check(
    probes: Sequence[Probe],
    cancel: threading.Event,
    *,
    seconds: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Generator[Started | Found]:
    """Run `probes` and yield Started and Found for each, in the order in which they come.

    `seconds` is the limit of each in place of its own, `env` is added to the environment. After `cancel`,
    or when the generator is closed, the children are ended and nothing more is found.
    """
    events: queue.Queue[Started | Found | None] = queue.Queue()
    stop = _Stop(cancel)

    def one(probe: Probe) -> None:
        try:
            if not stop.is_set():
                events.put(Started(probe.id))
                finding = _run(probe, stop, seconds or probe.seconds, env)
                if finding is not None:
                    events.put(Found(finding))
        except Exception as error:  # no row may be lost for a fault of ours
            fault = f"could not be looked at: {type(error).__name__}: {error}"
            events.put(Found(_broken(probe, fault, None)))
        finally:
            events.put(None)

    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="probe") as pool:
        try:
            for probe in sorted(probes, key=lambda probe: -probe.seconds):  # the slow ones first
                pool.submit(one, probe)
            ended = 0
            while ended < len(probes):
                event = events.get()
                if event is None:
                    ended += 1
                elif not stop.is_set():
                    yield event
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


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


def _run(probe: Probe, cancel: _Stop, seconds: float, env: Mapping[str, str] | None) -> Finding | None:
    """What `probe` finds; None where it was cancelled."""
    stop = _Stop(cancel, time.monotonic() + seconds)
    matcher = Matcher(known for known in KNOWN if issubclass(known.error, ToolchainError))
    last, told, code = "", None, 0
    try:
        with contextlib.closing(process.stream(command(probe, seconds), stop, env=env)) as items:
            for item in items:
                match item:
                    case process.Record("finding", body):
                        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                            told = from_json(body)
                    case process.Record("error", body):
                        last = str(body.get("what", ""))
                    case process.Lines(lines):
                        matcher.feed(lines)
                        last = next((line for line in reversed(lines) if line.strip()), last)
                    case process.Exited(code, _):
                        pass
    except OSError as error:
        return _broken(probe, f"cannot be looked at: {error.strerror or error}", None)
    if told is not None and told.id == probe.id:
        return told
    if cancel.is_set():
        return None
    said = f": {clip(last.strip())}" if last.strip() else ""
    if stop.late:
        what = f"no answer within {seconds:g} s{said}"
    elif code > 128 or code < 0:
        what = f"crashed ({signal_name(code)}){said}"
    else:
        what = f"ended with exit code {code}{said}"
    return _broken(probe, what, matcher.cause())


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
