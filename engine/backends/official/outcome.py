"""Whether mlc_llm has written what a stage is for, whatever its exit code says."""

import json
from pathlib import Path

from engine.errors import StageError
from engine.layout import CONFIG_NAME, MANIFEST_NAME, OLD_MANIFEST_NAME

_REMEDY = "Run it by hand to see more; the command stands in the log. The embedded backend needs no mlc_llm."


def crashed(code: int) -> bool:
    """Whether `code` is that of a process that was ended, rather than of one that gave up.

    128 + n for signal n; on Windows an NTSTATUS, which is negative where it is taken for signed.
    """
    return code > 128 or code < 0


def judge(stage: str, folder: Path, library: str | None) -> None:
    """Raise StageError where `folder` does not hold what `stage` makes; verify looks at it more closely."""
    if stage == "convert_weight":
        _weights(folder)
    elif stage == "gen_config":
        if not (folder / CONFIG_NAME).is_file():
            raise _nothing(stage, CONFIG_NAME)
    elif library is not None:
        path = folder / library
        if not path.is_file() or path.stat().st_size == 0:
            raise _nothing(stage, library)


def _weights(folder: Path) -> None:
    manifest = next((folder / n for n in (MANIFEST_NAME, OLD_MANIFEST_NAME) if (folder / n).is_file()), None)
    if manifest is None:
        raise _nothing("convert_weight", MANIFEST_NAME)
    try:
        shards = {s["dataPath"]: s["nbytes"] for s in json.loads(manifest.read_text("utf-8"))["records"]}
    except (ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"mlc_llm wrote a {manifest.name} that cannot be read: {error!r}.", remedy=_REMEDY
        ) from None
    short = [n for n, size in shards.items() if not _has(folder / n, size)]
    if short or not shards:
        named = ", ".join(short[:3]) or "no shard at all"
        raise StageError(
            f"mlc_llm said that it is done, but not all that {manifest.name} names is there: {named}.",
            remedy=_REMEDY,
        )


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _nothing(stage: str, name: str) -> StageError:
    return StageError(f"mlc_llm {stage} ended without an error but wrote no {name}.", remedy=_REMEDY)
