"""What this machine has to offer a run: memory and room on disk, in bytes."""

from dataclasses import dataclass
from pathlib import Path

from engine import disk


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Memory and free disk at one moment.

    `disk_free` is of the disk that holds the output, `cache_free` of the one with the Hub client's cache,
    None where both are the same.
    """

    ram_total: int
    ram_available: int
    disk_free: int
    cache_free: int | None = None


def inspect(output: Path) -> Machine:
    """The state of the machine now, for an export to `output`, which need not exist yet."""
    import psutil  # a front end asks once its first screen is there

    from engine.model.nearby import hub_cache

    memory = psutil.virtual_memory()
    cache = hub_cache()
    elsewhere = disk.place(cache).stat().st_dev != disk.place(output).stat().st_dev
    return Machine(
        ram_total=memory.total,
        ram_available=memory.available,
        disk_free=disk.free(output),
        cache_free=disk.free(cache) if elsewhere else None,
    )
