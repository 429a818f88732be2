"""OUT/.mlc-wizard/state.json: which stages are finished, of what fingerprint, with which files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from engine.disk import write_atomically
from engine.events import StageName

STATE_NAME = "state.json"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that a stage wrote; `name` is relative to OUT, with forward slashes."""

    name: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(kw_only=True)
class StageState:
    """What is known of one stage. An empty fingerprint matches none: the stage must run.

    `stale` are files of the run before that a commit under way has still to remove.
    """

    fingerprint: str = ""
    committing: bool = False
    seconds: float = 0.0
    files: list[File] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)


def write_state(home: Path, stages: Mapping[str, StageState]) -> None:
    """Write the state into `home`, whole or not at all. Raises a WizardError where that fails."""
    document = {"version": _VERSION, "stages": {name: asdict(state) for name, state in stages.items()}}
    write_atomically(home / STATE_NAME, json.dumps(document, indent=1))


def read_state(home: Path) -> dict[str, StageState]:
    """The state in `home`. Raises OSError where there is none, ValueError for what no run of ours wrote."""
    try:
        document = json.loads((home / STATE_NAME).read_text(encoding="utf-8"))
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']!r}")
        return {_stage_name(name): _stage(entry) for name, entry in document["stages"].items()}
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _stage_name(name: str) -> str:
    if name not in get_args(StageName):
        raise ValueError(f"{name!r} is no stage")
    return name


def _stage(entry: Mapping[str, Any]) -> StageState:
    state = StageState(**{**entry, "files": [File(**file) for file in entry["files"]]})
    _check_types(state, _STAGE_TYPES)
    for file in state.files:
        _check_types(file, _FILE_TYPES)
    for name in (*(file.name for file in state.files), *state.stale):
        _check_name(name)
    return state


_FILE_TYPES = {"name": str, "size": int, "mtime_ns": int, "sha256": str}
_STAGE_TYPES = {
    "fingerprint": str,
    "committing": bool,
    "seconds": (int, float),
    "files": list,
    "stale": list,
    "result": dict,
}


def _check_types(part: File | StageState, types: Mapping[str, Any]) -> None:
    for name, kind in types.items():
        value = getattr(part, name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} = {value!r}")


def _check_name(name: object) -> None:
    """Files of these names get replaced and removed: none may be outside the export."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name or ":" in name:
        raise ValueError(f"{name!r} names no file of an export")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} is outside the export")
