"""Static libraries for apps: a `.tar` of object files, which `mlc_llm package` joins with those of others."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path


def pack(output: str, objects: Sequence[str], **_options: object) -> None:
    """Write the object files `objects` into the archive `output`, the same bytes for the same objects.

    Not compressed, unlike that of mlc_llm: tar unpacks either. In the form that relax's
    `export_library(output, fcompile=pack)` calls.
    """
    # No time and no user in it: an archive tells of its objects alone.
    with (
        Path(output).open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(objects, key=lambda name: Path(name).name):
            data = Path(name).read_bytes()
            member = tarfile.TarInfo(Path(name).name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))


pack.object_format = "o"  # type: ignore[attr-defined]  # read by export_library
