"""What `model.source` names: the demo model inside the package, a folder, or a model on the Hub."""

import os
import re
from pathlib import Path
from typing import Literal, NoReturn

from engine import paths
from engine.errors import UsageError
from engine.plan import BUILTIN_DEMO

SourceKind = Literal["builtin", "folder", "hub"]

# A Hub id is NAME or OWNER/NAME of letters, digits, "-", "_" and "." (huggingface_hub's validate_repo_id).
_PART = r"[A-Za-z0-9_](?:[\w.\-]*\w)?"
_HUB_ID = re.compile(rf"{_PART}(?:/{_PART})?", re.ASCII)

DEMO_MODEL = Path(__file__).parents[1] / "demo_model"
"""The folder of the demo model, package data of engine."""


def kind(source: str) -> SourceKind:
    """What kind of source a plan's `source` is; folders are absolute in a plan.

    Raises UsageError where it can be none of the three.
    """
    if source == BUILTIN_DEMO:
        return "builtin"
    if Path(source).is_absolute():
        return "folder"
    if is_hub_id(source):
        return "hub"
    raise UsageError(
        f"model.source = {source!r} is neither a folder here nor a model id of the Hugging Face Hub.",
        why=f'Allowed: a Hub id such as "google/gemma-3-270m-it", an existing folder, or "{BUILTIN_DEMO}".',
        remedy="Check the spelling, or give the folder's full path.",
    )


def is_hub_id(source: str) -> bool:
    """Whether `source` has the form of a Hub id."""
    return (
        len(source) <= 96
        and _HUB_ID.fullmatch(source) is not None
        and "--" not in source
        and ".." not in source
        and not source.endswith(".git")
    )


def from_preset(text: str, base: Path) -> str:
    """The plan's `source` for what a preset in the folder `base` says.

    A folder wins over a Hub id of the same name, as in transformers, and becomes absolute. What
    looks like a path stays one even where nothing is there, so that its absence is told as such.
    """
    if text == BUILTIN_DEMO:
        return text
    folder = paths.expanded(text)
    if folder.is_absolute():
        return str(folder)
    beside = base / folder
    spelled_as_path = text.startswith((".", "~")) or "\\" in text or text.count("/") > 1
    spelled_as_path = spelled_as_path and "://" not in text
    if spelled_as_path or paths.is_folder(beside):
        return os.path.realpath(beside)
    kind(text)
    return text


def adapter_from_preset(text: str, base: Path) -> str:
    """The plan's `lora_adapter` for what a preset in the folder `base` says; a folder becomes absolute.

    Raises UsageError where it is neither a path nor a Hub id.
    """
    repo_id, at, _ = text.partition("@")
    if at and is_hub_id(repo_id) and not paths.is_folder(base / text):
        return text
    try:
        return from_preset(text, base) if text != BUILTIN_DEMO else _no_adapter(text)
    except UsageError:
        return _no_adapter(text)


def adapter_place(adapter: str) -> Path | tuple[str, str]:
    """Where a plan's `lora_adapter` is: its folder, or Hub id and revision, empty for the newest.

    Raises UsageError where it is neither.
    """
    if Path(adapter).is_absolute():
        return Path(adapter)
    repo_id, _, revision = adapter.partition("@")
    if not is_hub_id(repo_id):
        _no_adapter(adapter)
    return repo_id, revision


def _no_adapter(text: str) -> NoReturn:
    raise UsageError(
        f"model.lora_adapter = {text!r} is neither a folder here nor an id of the Hugging Face Hub.",
        why="Allowed: an existing folder that PEFT saved, or owner/name, with @revision where one is wanted.",
        remedy="Check the spelling, or give the folder's full path.",
    )


def local_folder(source: str) -> Path | None:
    """The folder a plan's `source` is, or None for a Hub id, which must be fetched first."""
    match kind(source):
        case "builtin":
            return DEMO_MODEL
        case "folder":
            return Path(source)
        case "hub":
            return None
