"""TVM's runtime for browsers, which is compiled once and kept in the user's cache."""

import sys
from pathlib import Path

from engine.errors import ToolchainError
from engine.toolchain.finding import Finding, Remedy, running
from engine.toolchain.probe import Probe

_PROGRAM = (sys.executable, "-P", "-m", "engine.embedded.wasm")


def _look(probe: Probe) -> Finding:
    from engine.embedded.wasm import build, cache, toolchain

    try:
        place = cache.root() / build.KIND
    except ToolchainError as error:
        return probe.finding("broken", error.what, why=error.why, remedy=Remedy(told=error.remedy))
    clear = running("Clear it, and compile it anew.", (*_PROGRAM, "clear"), (*_PROGRAM, "build"))
    try:
        key = build.key(toolchain.find())
    except ToolchainError as error:
        return probe.finding(
            "warn", f"unknown: {error.what}", why="Which runtime is the right one, the packages say."
        )
    folder = place / key
    others = [path for path in _entries(place) if path != folder]
    stale = f"; {len(others)} of other versions" if others else ""
    if problem := unwritable(place):
        return probe.finding(
            "broken",
            problem,
            why="The runtime is kept there: it can neither be compiled nor used.",
            remedy=_elsewhere(cache.CACHE_VARIABLE),
        )
    if not folder.exists():
        return probe.finding(
            "warn",
            f"not compiled yet, in {place}{stale}",
            why="The first library for webgpu compiles it, once for all models, in one to three minutes.",
            remedy=running("Compile it now.", (*_PROGRAM, "build")),
        )
    if damaged := cache.damaged(folder):
        shown = ", ".join(damaged[:3]) + (" and more" if len(damaged) > 3 else "")
        return probe.finding(
            "warn",
            f"damaged: {shown} in {folder}",
            why="Files do not have the SHA-256 that they were written with. The next library for webgpu "
            "compiles the runtime anew.",
            remedy=clear,
        )
    return probe.finding("ok", f"compiled, every file as written, {key} in {place}{stale}")


def _entries(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if path.is_dir()]
    except OSError:
        return []


def unwritable(place: Path) -> str:
    """Why nothing can be written into `place`, which need not be there; "" where it can."""
    import tempfile

    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"{place} cannot be written: {error.strerror or error}"


def _elsewhere(variable: str) -> Remedy:
    return Remedy(told=f"Make the folder writable, or set {variable} to another one.")


PROBES = (
    Probe(
        id="wasm-runtime",
        group="wasm",
        title="Runtime for browsers",
        wanted="compiled, in the cache, every file with its SHA-256",
        why="A part of every library for webgpu, compiled from TVM's sources by zig.",
        needed_for={"embedded": ("webgpu",)},
        look=_look,
        seconds=30.0,
    ),
)
