"""The facts of a Hub model before it is fetched: what the child `engine.model.look` tells, as ModelFacts.

The Hub client never runs in the process that shows the screen.
"""

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import errors, process
from engine.errors import Cancelled, StageError, WizardError
from engine.model import facts as model_facts
from engine.model import nearby
from engine.model.facts import ModelFacts, Remote
from engine.model.tensor_info import TensorInfo
from engine.model.tensors import TensorSource


def look(
    repo_id: str, revision: str, model_type: str, cancel: threading.Event, *, limit: float | None = None
) -> Iterator[ModelFacts]:
    """The facts of the Hub model `repo_id`: as config.json and the file list tell them, then exact ones.

    `limit` is in seconds for all of it, the child's own by default; `cancel` ends the child.
    Raises HubUnreachable where the Hub gives no answer, NotAuthorizedError, UsageError or StageError
    for what stands against the model, and Cancelled.
    """
    wanted = ("--revision", revision) if revision else ()
    within = ("--limit", str(limit)) if limit is not None else ()
    argv = [sys.executable, "-P", "-m", "engine.model.look", repo_id, *wanted, *within]
    told: list[str] = []
    infos: list[TensorInfo] = []
    folder, remote, complete = Path(), None, False
    with contextlib.closing(process.stream(argv, cancel)) as items:
        for item in items:
            match item:
                case process.Record("look", body):
                    folder = Path(body["folder"])
                    remote = Remote(
                        name=repo_id,
                        commit=str(body["commit"]),
                        sizes=dict(body["sizes"]),
                        download_bytes=int(body["download_bytes"]),
                    )
                    yield _facts(folder, model_type, remote)
                case process.Record("headers", body):
                    infos += _infos(folder, body["tensors"])
                case process.Record("complete", body) if remote and body["tensors"] == len(infos):
                    complete = True
                    by_name = {info.name: info for info in infos}
                    tensors = TensorSource(by_name, {}) if infos else None
                    yield _facts(folder, model_type, dataclasses.replace(remote, tensors=tensors))
                case process.Record("error", body):
                    raise _error(body)
                case process.Lines(lines):
                    told += lines
                case process.Exited(_, True):
                    raise Cancelled("Stopped while looking.")
                case process.Exited(code, False) if code or not complete:
                    last = f"Its last line: {told[-1]}" if told else "It printed nothing."
                    raise StageError(f"Looking at {repo_id} failed with exit code {code}.", why=last)


def cached(repo_id: str, revision: str, model_type: str) -> ModelFacts | None:
    """The facts of a model that the Hub client has fetched whole before; None for any other.

    Raises UsageError or StageError for a copy that cannot be used.
    """
    folder = nearby.cached_snapshot(repo_id, revision)
    return model_facts.read(folder, model_type, commit=folder.name) if folder else None


def _facts(folder: Path, model_type: str, remote: Remote) -> ModelFacts:
    if remote.download_bytes:
        return model_facts.read(folder, model_type, remote=remote)
    return model_facts.read(folder, model_type, commit=remote.commit)


def _infos(folder: Path, tensors: Any) -> list[TensorInfo]:
    return [
        TensorInfo(
            name=name, file=folder / file, dtype=dtype, shape=tuple(shape), offset=offset, nbytes=nbytes
        )
        for name, file, dtype, shape, offset, nbytes in tensors
    ]


def _error(body: Mapping[str, Any]) -> WizardError:
    kind = getattr(errors, str(body.get("kind")), StageError)
    return kind(str(body["what"]), why=str(body.get("why", "")), remedy=str(body.get("remedy", "")))
