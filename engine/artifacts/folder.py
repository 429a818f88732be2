"""The folder itself: nothing left over, and everything as the receipt says."""

import json
from collections.abc import Mapping
from pathlib import Path

from engine.artifacts.library import LIBRARY_PATTERN
from engine.artifacts.report import Report
from engine.artifacts.weights import Shard
from engine.layout import HOME_NAME, RECEIPT_NAME
from engine.run.fingerprint import sha256
from engine.run.state import STATE_NAME


def verify(
    output: Path, manifest: tuple[Shard, ...] | None, library_name: str | None, report: Report
) -> None:
    """Check for leftovers, and the receipt where there is one."""
    stray = [path.name for pattern in ("*.partial", "*.tmp", "*.incomplete") for path in output.glob(pattern)]
    stray += [
        f"{path.parent.name}/{path.name}"
        for path in output.glob(".mlc-wizard/*.partial")
        if path.name != "verify.partial"  # of the very run that asks
    ]
    if manifest is not None:
        named = {shard.name for shard in manifest}
        stray += [path.name for path in output.glob("params_shard_*.bin") if path.name not in named]
    if library_name is not None:
        stray += [path.name for path in output.glob(LIBRARY_PATTERN) if path.name != library_name]
    report.add("leftovers", [f"{name} belongs to no export" for name in sorted(stray)], "none")
    if (output / RECEIPT_NAME).exists():
        with report.guarding("receipt"):
            _receipt(output, report)
    elif _was_left(output):
        # Each file may be right, and they may still be of two plans or two models.
        report.add("receipt", ["there is none: the last run into this folder did not come to its end"], "")


def _was_left(output: Path) -> bool:
    """A run of ours has worked here, and it is not the one that asks: that one is building `verify`."""
    home = output / HOME_NAME
    return (home / STATE_NAME).exists() and not (home / "verify.partial").exists()


def made_by(output: Path) -> str:
    """The backend whose compiler made the export, as its receipt says; empty without one."""
    try:
        receipt = json.loads((output / RECEIPT_NAME).read_text(encoding="utf-8"))
        return str(receipt.get("compiler") or receipt["backend"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def compiled(output: Path) -> Mapping[str, str]:
    """What compile told of its library: name, host, processor, prefix. Empty where nothing tells.

    The receipt says so, and in a run, which has none yet, the state of its stages.
    """
    for path, *keys in (
        (output / RECEIPT_NAME, "library"),
        (output / HOME_NAME / "state.json", "stages", "compile", "result"),
    ):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            for key in keys:
                found = found[key]
            return {str(key): str(value) for key, value in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return {}


def _receipt(output: Path, report: Report) -> None:
    files = json.loads((output / RECEIPT_NAME).read_text(encoding="utf-8"))["files"]
    problems = []
    for entry in files:
        path = output / entry["name"]
        if not path.is_file():
            problems.append(f"{entry['name']} is missing")
        elif path.stat().st_size != entry["size"] or sha256(path) != entry["sha256"]:
            problems.append(f"{entry['name']} has changed since")
    report.add("receipt", problems, f"size and sha256 of {len(files)} files")
