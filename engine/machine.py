"""What this machine has to offer a run: memory and room on disk, in bytes."""

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Memory and free disk at one moment. `disk_free` is of the disk that holds the output."""

    ram_total: int
    ram_available: int
    disk_free: int


def inspect(output: Path) -> Machine:
    """The state of the machine now, for an export to `output`, which need not exist yet."""
    import psutil  # a front end asks once its first screen is there

    memory = psutil.virtual_memory()
    return Machine(ram_total=memory.total, ram_available=memory.available, disk_free=disk_free(output))


def disk_free(path: Path) -> int:
    """Free bytes of the disk where `path` is or would be made."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free
