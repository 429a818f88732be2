"""Memory, and room on the disks that an export writes to."""

from pathlib import Path

from engine.errors import ToolchainError
from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe
from engine.units import megabytes

MEMORY = 4 * 10**9
"""Below it compiling a library may not fit: TVM takes about 2 GB beside the rest of a system."""
DISK = 5 * 10**9
"""Below it a model of a billion parameters does not fit beside what is made of it."""


def _memory(probe: Probe) -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    told = f"{megabytes(memory.total)}, {megabytes(memory.available)} of it free"
    if memory.total >= MEMORY:
        return probe.finding("ok", told)
    return probe.finding(
        "warn",
        told,
        why="Compiling may run out of memory; converting reads weights a block at a time and does not.",
        remedy=Remedy(
            told="Close other programs, or compile on a larger machine: --no-compile makes the rest."
        ),
    )


def _disk(probe: Probe) -> Finding:
    from engine import disk
    from engine.embedded.wasm import cache
    from engine.model.nearby import hub_cache

    here = Path.cwd()
    places = {"here": lambda: here, "Hub cache": hub_cache, "own cache": cache.root}
    free = {}
    unknown = []
    for name, place in places.items():
        try:
            free[name] = disk.free(place())
        except OSError as error:
            unknown.append(f"{name}: {error.strerror}")
        except ToolchainError as error:
            unknown.append(f"{name}: {error.what}")
    told = ", ".join([f"{megabytes(size)} {name}" for name, size in free.items()] + unknown)
    if free and min(free.values()) >= DISK and not unknown:
        return probe.finding("ok", told)
    return probe.finding(
        "warn",
        told,
        why="The step Review tells what a certain model takes.",
        remedy=Remedy(
            told="Free some space, or choose other places: --output for the export, HF_HOME for the Hub "
            f"cache, {cache.CACHE_VARIABLE} for the runtime for browsers."
        ),
    )


PROBES = (
    Probe(
        id="memory",
        group="machine",
        title="Memory",
        wanted="4 GB or more",
        why="Compiling takes 2 GB or so, whatever the size of the model.",
        look=_memory,
    ),
    Probe(
        id="disk",
        group="machine",
        title="Free disk space",
        wanted="5 GB or more in each place",
        why="The model that is fetched, and what is made of it, are on disk at the same time.",
        look=_disk,
    ),
)
