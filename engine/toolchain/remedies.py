"""Run the commands of a remedy, one after the other, and yield what they say."""

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass

from engine import paths, process
from engine.errors import Cancelled, StageError, UsageError, WizardError
from engine.explain.match import Matcher
from engine.shell import shell_line
from engine.toolchain.finding import Remedy
from engine.toolchain.programs import clip, signal_name

_ENVIRONMENT = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
"""Nobody is there to answer a question; and what pip thinks of its own age is no help."""


@dataclass(frozen=True)
class Begun:
    """A command has begun."""

    argv: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """Lines of its output."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """All commands have ended well, or `error` says how it came to its end before."""

    error: WizardError | None


def follow(remedy: Remedy, cancel: threading.Event) -> Generator[Begun | Said | Ended]:
    """Run the commands of `remedy`, which is one that is safe to run; the last event is Ended.

    A command that fails is the last. After `cancel`, or when the generator is closed, the command at work
    and all that it has started is ended.
    """
    for argv in remedy.runs:
        yield Begun(argv)
        matcher, last, code, cancelled = Matcher(), "", 0, False
        with contextlib.closing(process.stream(argv, cancel, env=_ENVIRONMENT)) as items:
            for item in items:
                match item:
                    case process.Lines(lines):
                        matcher.feed(lines)
                        last = next((line for line in reversed(lines) if line.strip()), last)
                        yield Said(lines)
                    case process.Record("progress", body):
                        yield Said((_progress(body),))
                    case process.Record("error", body):
                        lines = tuple(str(body.get(part, "")) for part in ("what", "why", "remedy"))
                        last = lines[0]
                        yield Said(tuple(line for text in lines for line in text.splitlines()))
                    case process.Exited(code, cancelled):
                        pass
        if cancelled:
            yield Ended(Cancelled("Stopped.", remedy="What was done until then stays. It can be run again."))
            return
        if code != 0:
            yield Ended(_failure(argv, code, last, matcher))
            return
    yield Ended(None)


def check_environment(folder: str) -> None:
    """Raise UsageError where no environment can be made or changed in `folder`."""
    path = paths.expanded(folder)
    if not folder.strip():
        raise UsageError("A folder for the environment is needed.")
    if not path.is_absolute():
        raise UsageError(f"{folder} is not an absolute path.", remedy=f"Perhaps {path.absolute()}.")
    if paths.is_taken(path) and not paths.is_folder(path):
        raise UsageError(f"{folder} is a file.")
    try:
        occupied = path.is_dir() and not (path / "pyvenv.cfg").is_file() and any(path.iterdir())
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}.") from None
    if occupied:
        raise UsageError(
            f"{folder} holds other things than a virtual environment.",
            remedy="Choose an empty folder, or a new one.",
        )


def _progress(body: object) -> str:
    if not isinstance(body, dict):
        return ""
    total = body.get("total")
    of = f"/{total}" if total is not None else ""
    return f"{body.get('done', '')}{of} {body.get('unit', '')} {body.get('detail', '')}".rstrip()


def _failure(argv: tuple[str, ...], code: int, last: str, matcher: Matcher) -> StageError:
    how = f"crashed ({signal_name(code)})" if code > 128 else f"ended with exit code {code}"
    what = f"{clip(shell_line(argv))} {how}."
    cause = matcher.cause()
    if cause is not None:
        return StageError(what, why=f"{cause.known.title} {cause.known.cause}", remedy=cause.known.remedy)
    why = f"Its last line: {clip(last.strip())}" if last.strip() else "It printed nothing."
    return StageError(what, why=why, remedy="What it says above tells more; the command can be run by hand.")
