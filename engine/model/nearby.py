"""Models that are on this machine already: folders, and snapshots in the Hub client's cache.

Looks at names and indices; the Hub client itself is not needed for that.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine import paths
from engine.errors import WizardError
from engine.model.facts import CONFIG_FILE
from engine.model.files import read_json_object
from engine.model.tensors import weights_file
from engine.plan import BUILTIN_DEMO

_MOST = 200


@dataclass(frozen=True, kw_only=True)
class Nearby:
    """A model here: what a preset would name as its `source`, and where it lies."""

    source: str
    place: str


def hub_cache() -> Path:
    """The cache of huggingface_hub, found by the variables that it goes by."""
    if named := os.environ.get("HF_HUB_CACHE"):
        return _client_path(named)
    if home := os.environ.get("HF_HOME"):
        return _client_path(home) / "hub"
    base = _client_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return base / "huggingface" / "hub"


def _client_path(text: str) -> Path:
    """`text` as the client takes it: where there is no home, a folder called ~ in the current one."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  Path.expanduser raises there


def cached_snapshot(repo_id: str, revision: str = "") -> Path | None:
    """The folder of a Hub model in the cache, if it has config and all weights.

    No `revision` means "main" as it was last seen; where that was never fetched whole, the snapshot
    that was fetched last. What a folder is of, its name says: the commit.
    """
    repository = hub_cache() / f"models--{repo_id.replace('/', '--')}"
    try:
        commit = (repository / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    snapshots = repository / "snapshots"
    if commit and _is_model(snapshots / commit):
        return snapshots / commit
    whole = [] if revision else [place for place in _folders(snapshots) if _is_model(place)]
    return max(whole, key=_when, default=None)


def models(folder: Path) -> Iterator[Nearby]:
    """The demo, the models in `folder` and one level below, and those in the Hub client's cache."""
    yield Nearby(source=BUILTIN_DEMO, place="built in, no download")
    for place in (folder, *_folders(folder)):
        if _is_model(place):
            name = "." if place == folder else f".{os.sep}{place.name}"
            yield Nearby(source=name, place="a folder here")
    for repository in _folders(hub_cache()):
        kind, _, name = repository.name.partition("--")
        repo_id = name.replace("--", "/", 1)
        if kind == "models" and cached_snapshot(repo_id) is not None:
            yield Nearby(source=repo_id, place="fetched from the Hub before")


def _folders(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in names if not name.startswith(".")][:_MOST]


def _is_model(folder: Path) -> bool:
    try:
        return (folder / CONFIG_FILE).is_file() and _has_weights(folder)
    except OSError:
        return False


def _has_weights(folder: Path) -> bool:
    found = weights_file({path.name for path in folder.iterdir()})
    if found is None or not found.endswith(".json"):
        return found is not None
    # The Hub client's cache has the index of a model long before it has the weights.
    try:
        weight_map = read_json_object(folder / found).get("weight_map")
        return isinstance(weight_map, dict) and all(
            paths.is_file(folder / str(name)) for name in set(weight_map.values())
        )
    except (WizardError, TypeError):
        return True  # whoever opens it tells what is wrong


def _when(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
