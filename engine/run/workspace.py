"""The folder of an export while it is made: lock, state, and stages committed whole or not at all.

OUT/.mlc-wizard/lock            held while a run works in OUT; the system frees it with the process
OUT/.mlc-wizard/state.json      which stages are finished, of what fingerprint, with which files
OUT/.mlc-wizard/STAGE.partial/  what STAGE has written so far

A commit first writes down what it is about to do (`committing`), then renames, then says it is done;
so a run killed in between is completed by the next one without the stage being run again. Files that
no stage wrote are never replaced or deleted.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import filelock

from engine import paths
from engine.disk import disk_error
from engine.errors import UsageError, WizardError
from engine.events import StageName
from engine.layout import CONFIG_NAME, HOME_NAME, RECEIPT_NAME
from engine.run.fingerprint import sha256
from engine.run.state import File, StageState, read_state, write_state

EXPORT_PATTERNS = (
    CONFIG_NAME,
    "tensor-cache*.json",
    "ndarray-cache*.json",
    "params_shard_*.bin",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
)
"""What every export holds; found in OUT without a run having written it, it is somebody else's."""


class Workspace:
    """The export folder `output` (absolute), locked by this process."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.home = output / HOME_NAME
        self.stages: dict[str, StageState] = {}
        self._earlier: set[str] = set()

    @classmethod
    @contextlib.contextmanager
    def locked(cls, output: Path, library: str) -> Iterator["Workspace"]:
        """The workspace of `output`, made where it is missing, recovered from a run that was killed.

        `library` is the name that the model library will have. Raises UsageError where another run
        works in it, where it cannot be written, or where it holds an export of somebody else's.
        """
        workspace = cls(output)
        try:
            if not paths.is_folder(workspace.home):  # no run was here: nothing may be written before the look
                workspace._load()
                workspace._refuse_foreign_export(library)
            workspace.home.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(workspace.home / "lock", blocking=False, thread_local=False)
            lock.acquire()
        except filelock.Timeout:
            raise UsageError(
                f"Another run is working in {output}.",
                remedy="Wait for it to end, stop it, or choose another folder.",
                fix="output",
            ) from None
        except NotImplementedError:
            raise UsageError(
                f"The disk that holds {output} cannot lock files.",
                why="Without a lock two runs could work in one folder and spoil each other's files.",
                remedy="Choose a folder on a local disk.",
                fix="output",
            ) from None
        except OSError as error:
            raise _unusable(output, error) from None
        try:
            workspace._load()
            workspace._refuse_foreign_export(library)
            workspace._recover()
            yield workspace
        finally:
            lock.release()

    @classmethod
    def look(cls, output: Path, library: str) -> list[File]:
        """The files that earlier runs finished in `output`; nothing is written or locked.

        Raises UsageError where it holds an export of somebody else's, which no run would touch.
        """
        workspace = cls(output)
        workspace._load()
        workspace._refuse_foreign_export(library)
        return workspace.files()

    def building(self, stage: StageName) -> Path:
        """The folder in which `stage` writes."""
        return self.home / f"{stage}.partial"

    def begin(self, stage: StageName) -> Path:
        """An empty building folder for `stage`."""
        folder = self.building(stage)
        self.discard(stage)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise disk_error(error, folder) from None
        return folder

    def discard(self, stage: StageName) -> None:
        """Remove what `stage` has written so far and not committed."""
        shutil.rmtree(self.building(stage), ignore_errors=True)

    def finished(self, stage: StageName, fingerprint: str) -> bool:
        """Whether `stage` is done for `fingerprint` and its files are as it wrote them.

        Size and mtime are enough for that; where only the mtime differs, as after a copy, the
        content decides. What neither shows, the verify stage finds, which always runs.
        """
        state = self.stages.get(stage)
        if state is None or state.committing or state.fingerprint != fingerprint:
            return False
        return all(self._is_intact(file) for file in state.files)

    def commit(
        self,
        stage: StageName,
        fingerprint: str,
        seconds: float,
        result: dict[str, Any] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Move what `stage` wrote to its final place and remove what it wrote there in earlier runs.

        `between` is called before each file is hashed, which takes a while for large models; what it
        raises ends the commit before anything was moved. Raises UsageError where a file of somebody
        else's would be replaced.
        """
        folder = self.building(stage)
        try:
            files = []
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                between()
                files.append(_described(path, folder))
            names = {file.name for file in files}
            self.refuse_foreign(names)
            before = self.stages.get(stage, StageState())
            stale = {file.name for file in before.files} | set(before.stale)
            self.stages[stage] = StageState(
                fingerprint=fingerprint,
                committing=True,
                seconds=seconds,
                files=files,
                stale=sorted(stale - names),
                result=result or {},
            )
            self.save()
            self._settle(stage)
        except OSError as error:
            raise disk_error(error, self.output) from None

    def remove(self, stage: StageName) -> None:
        """Take away `stage` and its files: the plan does not have it."""
        if stage not in self.stages:
            return
        try:
            for file in self.stages[stage].files:
                (self.output / file.name).unlink(missing_ok=True)
            del self.stages[stage]
            self.save()
        except OSError as error:
            raise disk_error(error, self.output) from None

    def forget(self) -> None:
        """No stage counts as finished; their files stay until new ones replace them."""
        for state in self.stages.values():
            state.fingerprint = ""
        self.save()

    def forget_damaged(self) -> list[str]:
        """Forget the stages of files whose content is not what was committed; the names of those files."""
        damaged = []
        for state in self.stages.values():
            for file in state.files:
                path = self.output / file.name
                if not path.is_file() or sha256(path) != file.sha256:
                    damaged.append(file.name)
                    state.fingerprint = ""
        self.save()
        return damaged

    def files(self) -> list[File]:
        """The files of all stages, by name."""
        return sorted((f for state in self.stages.values() for f in state.files), key=lambda f: f.name)

    def refuse_foreign(self, names: set[str]) -> None:
        """Raise UsageError where one of `names` exists in OUT and is not from a run of ours."""
        ours = {name for state in self.stages.values() for name in state.stale} | self._earlier
        ours |= {file.name for file in self.files()}
        foreign = sorted(name for name in names - ours if paths.is_taken(self.output / name))
        if foreign:
            shown = ", ".join(foreign[:4]) + (f" and {len(foreign) - 4} more" if len(foreign) > 4 else "")
            raise UsageError(
                f"{self.output} holds files that mlc-wizard did not write there: {shown}.",
                why="The export would replace them.",
                remedy="Choose another folder, or move them away.",
                fix="output",
            )

    def _refuse_foreign_export(self, library: str) -> None:
        """`refuse_foreign` for what an export is known to hold."""
        present = os.listdir(self.output) if paths.is_folder(self.output) else []  # noqa: PTH208  names alone
        found = {name for name in present if any(fnmatchcase(name, pattern) for pattern in EXPORT_PATTERNS)}
        self.refuse_foreign(found | {library})

    def save(self) -> None:
        """Write the state, whole or not at all."""
        write_state(self.home, self.stages)

    def _load(self) -> None:
        try:
            self.stages = read_state(self.home)
        except (OSError, ValueError):
            # Unreadable is as good as absent: stages run again, on files that the receipt proves ours.
            self.stages = {}
            self._earlier = self._receipted()

    def _receipted(self) -> set[str]:
        """Files that the receipt lists and that are still what it says: written by us."""
        try:
            listed = json.loads((self.output / RECEIPT_NAME).read_text(encoding="utf-8"))["files"]
            return {
                entry["name"]
                for entry in listed
                if (path := self.output / entry["name"]).is_file()
                and path.stat().st_size == entry["size"]
                and sha256(path) == entry["sha256"]
            }
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return set()

    def _recover(self) -> None:
        """Complete a commit that was cut short, and remove what no stage finished."""
        for name, state in self.stages.items():
            if not state.committing:
                continue
            building = self.home / f"{name}.partial"
            if all((building / f.name).is_file() or self._is_intact(f) for f in state.files):
                self._settle(name)
            else:
                state.committing, state.fingerprint = False, ""
        for folder in self.home.glob("*.partial"):
            shutil.rmtree(folder, ignore_errors=True)

    def _settle(self, stage: str) -> None:
        """The second half of a commit; doing it again does no harm.

        The manifest goes first and comes last: while it is there, all it names is there.
        """
        state, building = self.stages[stage], self.home / f"{stage}.partial"
        arriving = [file for file in state.files if (building / file.name).is_file()]
        leaving = {*state.stale, *(f.name for f in arriving if f.name.endswith(".json"))}
        for name in sorted(leaving, key=lambda name: not name.endswith(".json")):
            (self.output / name).unlink(missing_ok=True)
        for file in sorted(arriving, key=lambda file: file.name.endswith(".json")):
            target = self.output / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            (building / file.name).replace(target)
        state.committing, state.stale = False, []
        self.save()
        shutil.rmtree(building, ignore_errors=True)

    def _is_intact(self, file: File) -> bool:
        path = self.output / file.name
        try:
            status = path.stat()
            if status.st_size != file.size:
                return False
            return status.st_mtime_ns == file.mtime_ns or sha256(path) == file.sha256
        except OSError:
            return False


def _described(path: Path, folder: Path) -> File:
    status = path.stat()
    return File(
        name=path.relative_to(folder).as_posix(),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256=sha256(path),
    )


def _unusable(output: Path, error: OSError) -> WizardError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_error(error, output)
    home = output / HOME_NAME
    for place in (*reversed(home.parents), home):
        if paths.is_taken(place) and not paths.is_folder(place):
            is_what = "a link that leads to no folder" if place.is_symlink() else "a file, not a folder"
            return UsageError(
                f"The output folder {output} cannot be made: {place} is {is_what}.",
                remedy="Choose another, or move that away.",
                fix="output",
            )
    return UsageError(
        f"The output folder {output} cannot be used: {error.strerror or error}.",
        remedy="Choose another, or check its permissions.",
        fix="output",
    )
