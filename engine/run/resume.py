"""Runs that were begun and not ended: what their plan was, so that they can go on.

OUT/.mlc-wizard/plan.toml   the preset of the run, written when it begins; the receipt says that it ended
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import filelock

from engine import preset
from engine.errors import WizardError
from engine.layout import HOME_NAME, RECEIPT_NAME
from engine.plan import ExportPlan
from engine.run.state import read_state

PLAN_NAME = "plan.toml"
_MOST_FOLDERS = 2000


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run that can go on in `output`; `finished` are the stages that need not run again."""

    output: Path
    plan: ExportPlan
    finished: tuple[str, ...]


def remember(plan: ExportPlan, home: Path) -> None:
    """Write down what is about to be run. Raises UsageError where `home` cannot be written.

    The place of the export is where this lies. A path that is no Unicode cannot stand in a preset;
    such a run can be repeated, but is not offered.
    """
    placeless = replace(plan, output=Path())
    try:
        f"{plan.source}{plan.lora_adapter}{plan.interpreter}".encode()
    except UnicodeEncodeError:
        with contextlib.suppress(OSError):
            (home / PLAN_NAME).unlink()
        return
    preset.save(placeless, home / PLAN_NAME)


def unfinished(folder: Path) -> list[Unfinished]:
    """The unfinished runs in `folder` and two levels below it that no process works on, newest first."""
    found = []
    for output in _folders(folder):
        path = output / HOME_NAME / PLAN_NAME
        try:
            if (output / RECEIPT_NAME).exists() or not path.is_file() or _is_running(output):
                continue
            plan = replace(preset.load(str(path)), output=_as_seen_from(output, folder))
            found.append(
                (path.stat().st_mtime, Unfinished(output=output, plan=plan, finished=_finished(output)))
            )
        except (OSError, NotImplementedError, WizardError):
            continue  # of another version, or half removed: nothing that could go on
    return [run for _, run in sorted(found, key=lambda item: -item[0])]


def _folders(folder: Path) -> Iterator[Path]:
    """`folder` and what is in it, two levels deep; hidden folders and links are left out."""
    level, seen = [folder], 0
    for depth in range(3):
        below: list[Path] = []
        for place in level:
            yield place
            seen += 1
            if seen >= _MOST_FOLDERS:
                return
            if depth == 2:
                continue
            with contextlib.suppress(OSError), os.scandir(place) as entries:
                below += sorted(
                    Path(entry.path)
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
                )
        level = below


def _as_seen_from(output: Path, folder: Path) -> Path:
    return output.relative_to(folder) if output != folder else output


def _is_running(output: Path) -> bool:
    lock = filelock.FileLock(output / HOME_NAME / "lock", blocking=False, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False


def _finished(output: Path) -> tuple[str, ...]:
    """The stages that state.json calls finished, in the order in which they were."""
    try:
        stages = read_state(output / HOME_NAME).items()
    except (OSError, ValueError):
        return ()
    return tuple(name for name, found in stages if found.fingerprint and not found.committing)
