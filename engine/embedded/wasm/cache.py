"""Folders that take minutes to fill, kept in the user's cache between runs.

An entry is a folder with a manifest of the size and SHA-256 of each of its files. It is filled beside
its place and renamed into it when whole, so a killed process leaves nothing that passes for finished;
a lock of the operating system, which dies with its holder, keeps a second process waiting meanwhile.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from engine import paths
from engine.errors import StageError

CACHE_VARIABLE = "MLC_WIZARD_CACHE"
MANIFEST = "manifest.json"


def root() -> Path:
    """The cache folder: MLC_WIZARD_CACHE where set, else the platform's place for a user's caches.

    Raises ToolchainError where there is neither.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).absolute() if chosen else paths.of_user("cache")


def entry(kind: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The verified folder `<root>/<kind>/<key>`; `fill` is called with an empty folder where it is missing.

    An entry whose files no longer match its manifest is thrown away and filled again. What `fill`
    raises goes through; nothing is kept then. Raises StageError where the cache cannot be written.
    """
    folder = root() / kind / key
    if _intact(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{key}.lock")):
            if not _intact(folder):
                _refill(folder, fill)
    except NotImplementedError:
        raise StageError(
            f"The disk that holds the cache folder {folder.parent} cannot lock files.",
            remedy=f"Set {CACHE_VARIABLE} to a folder on a local disk.",
        ) from None
    except OSError as error:
        raise StageError(
            f"Cannot write the cache folder {folder.parent}: {error.strerror or error}.",
            remedy=f"Free some space or make it writable, or set {CACHE_VARIABLE} to another folder.",
        ) from error
    return folder


def _refill(folder: Path, fill: Callable[[Path], None]) -> None:
    """Replace `folder` by what `fill` makes. The caller holds the lock, so any remains are of the dead."""
    prefix = f"{folder.name}.unfinished-"
    for remains in (folder, *folder.parent.glob(f"{prefix}*")):
        shutil.rmtree(remains, ignore_errors=True)
    # A new name each time: a compiler that outlived its killed parent still writes to the old one.
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        fill(unfinished)
        files = sorted(path for path in unfinished.rglob("*") if path.is_file())
        manifest = {path.relative_to(unfinished).as_posix(): _fingerprint(path) for path in files}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _intact(folder: Path) -> bool:
    return not damaged(folder)


def damaged(folder: Path) -> list[str]:
    """The files of an entry that are not as they were written; the manifest, where it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not manifest:
            return [MANIFEST]
        return [name for name, expected in manifest.items() if _found(folder / name) != expected]
    except (OSError, ValueError, AttributeError, RecursionError):
        return [MANIFEST]


def _found(path: Path) -> dict[str, int | str] | None:
    try:
        return _fingerprint(path)
    except OSError:
        return None


def clear(kind: str) -> int:
    """Remove every entry of `kind` that no process is filling; how many bytes that frees.

    Raises StageError where one cannot be removed.
    """
    place = root() / kind
    freed = 0
    try:
        folders = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
        for folder in folders:
            key = folder.name.partition(".unfinished-")[0]
            with FileLock(folder.with_name(f"{key}.lock"), timeout=0):
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder)
                freed += size
    except Timeout:
        raise StageError(
            f"Another process is filling {place} now.", remedy="Wait for its end, or stop it, then repeat."
        ) from None
    except OSError as error:
        raise StageError(
            f"{error.filename or place} cannot be removed: {error.strerror or error}.",
            remedy="Check the folder and its permissions.",
        ) from error
    return freed


def _fingerprint(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
