"""Models that are on this machine already: folders, and snapshots in the Hub client's cache.

Looks at names only; the Hub client itself is not needed for that.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.model.facts import CONFIG_FILE
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
        return Path(named).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "huggingface" / "hub"


def cached_snapshot(repo_id: str, revision: str = "") -> Path | None:
    """The folder of a Hub model in the cache, if it has config and weights; no `revision` means "main"."""
    repository = hub_cache() / f"models--{repo_id.replace('/', '--')}"
    name = revision or "main"
    try:
        commit = (repository / "refs" / name).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = name
    folder = repository / "snapshots" / commit
    return folder if commit and _is_model(folder) else None


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
        names = {path.name for path in folder.iterdir() if path.is_file()}
        return CONFIG_FILE in names and weights_file(names) is not None
    except OSError:
        return False
