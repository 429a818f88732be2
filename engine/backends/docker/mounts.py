"""Folders of this machine in the container: where each is mounted, and what a path is there."""

import os
from dataclasses import dataclass
from pathlib import Path

from engine.backends.base import Folders
from engine.errors import UsageError

MODEL, ADAPTER, OUTPUT = "/mlc/model", "/mlc/adapter", "/mlc/output"
_MOST_LINKS = 40


@dataclass(frozen=True, kw_only=True)
class Mount:
    """The folder or file `here`, on this machine, is `there` in the container."""

    here: str
    there: str
    writable: bool = False

    def flag(self) -> tuple[str, str]:
        """Its `-v`."""
        return "-v", f"{self.here}:{self.there}" + ("" if self.writable else ":ro")


@dataclass(frozen=True, kw_only=True)
class Mounts:
    """All that a stage sees of this machine. `folders` are paths of this machine and of the container."""

    mounts: tuple[Mount, ...]
    folders: tuple[tuple[str, str], ...]

    def flags(self) -> tuple[str, ...]:
        """The arguments of `docker run`."""
        return tuple(word for mount in self.mounts for word in mount.flag())

    def inside(self, word: str) -> str:
        """`word`, an argument, as it must be in the container."""
        for here, there in self.folders:
            if word == here:
                return there
            if word.startswith((f"{here}/", f"{here}{os.sep}")):
                return there + word[len(here) :].replace(os.sep, "/")
        return word


def of(folders: Folders) -> Mounts:
    """What the stages read is mounted read-only, the output for writing.

    Raises UsageError for a path that `-v` cannot name.
    """
    reads = [(folders.source, MODEL), *([(folders.adapter, ADAPTER)] if folders.adapter else [])]
    mounts: list[Mount] = []
    places: list[tuple[str, str]] = []
    for folder, there in reads:
        found, place = _readable(folder, there)
        mounts += [mount for mount in found if mount not in mounts]
        places.append((str(folder), place))
    output = _nameable(folders.output)
    mounts.append(Mount(here=output, there=OUTPUT, writable=True))
    places.append((str(folders.output), OUTPUT))
    # Of folders within each other the inner one is what is meant.
    return Mounts(mounts=tuple(mounts), folders=tuple(sorted(places, key=lambda place: -len(place[0]))))


def _readable(folder: Path, there: str) -> tuple[list[Mount], str]:
    """The mounts that show `folder` with all that its links lead to, and where it is then.

    The Hub client's snapshots are links to `../../blobs`: the folder above both is mounted. A link to an
    absolute path leads to the same path in the container, where its target is mounted.
    """
    if not folder.is_dir():  # known once it was fetched
        return [Mount(here=str(folder), there=there)], there
    real = folder.resolve()
    around, absolute = {str(real)}, set[str]()
    for path in sorted(real.iterdir()):
        place = path
        for _ in range(_MOST_LINKS):
            if not place.is_symlink():
                break
            target = place.readlink()
            if target.is_absolute():  # the mount follows what this may lead to in turn
                absolute.add(str(target))
                break
            place = Path(os.path.normpath(place.parent / target))
            around.add(str(place.parent))
    base = Path(os.path.commonpath(around))
    place_there = "/".join((there, *real.relative_to(base).parts))
    mounts = [Mount(here=_nameable(base), there=there)]
    mounts += [Mount(here=_nameable(Path(target)), there=target) for target in sorted(absolute)]
    return mounts, place_there


def _nameable(path: Path) -> str:
    drive = len(path.drive)
    if ":" in str(path)[drive:]:
        raise UsageError(
            f"Docker cannot mount {path}: there is a colon in its name.",
            why="In -v a colon stands between the two places.",
            remedy="Rename the folder, or use the embedded backend (engine.backend = embedded).",
            fix="output",
        )
    return str(path)
