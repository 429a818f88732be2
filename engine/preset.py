"""Presets: TOML files that hold an ExportPlan, where they are found, and how they are saved."""

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from engine import paths, preset_schema
from engine.errors import ToolchainError, UsageError, WizardError
from engine.plan import ExportPlan

Origin = Literal["user", "shipped"]
SUFFIX = ".toml"

# ASCII, so that it can be typed anywhere; Windows ends no name with a dot and keeps names for devices.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}


@dataclass(frozen=True, kw_only=True)
class PresetEntry:
    """A preset that can be named; `error` is why it cannot be used, else empty."""

    name: str
    path: Path
    origin: Origin
    description: str = ""
    error: str = ""


def user_folder() -> Path:
    """Where the presets are that this user saved. Raises ToolchainError for a user without a home."""
    return paths.of_user("config") / "presets"


def shipped_folder() -> Path:
    """The presets that come with the program: inside the wheel, or beside engine/ in a checkout."""
    packaged = Path(__file__).parent / "_presets"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "presets"


def place_of(name: str) -> Path:
    """The file that a preset called `name` is saved as: one of the user's presets.

    Raises UsageError for a name that some system could not have as a file, or that `--preset` would
    not find again.
    """
    stem = name.removesuffix(SUFFIX)
    problem = ""
    if not stem:
        problem = "A preset needs a name."
    elif not _NAME.fullmatch(stem):
        problem = f"{stem!r} is no name for a preset."
    elif stem.partition(".")[0].upper() in _RESERVED:
        problem = f"{stem!r} is the name of a device on Windows."
    if problem:
        raise UsageError(
            problem,
            why="Allowed: up to 64 letters, digits, '-', '_' and '.', the first and last a letter or digit.",
            remedy="For example: gemma-270m-web",
        )
    return user_folder() / f"{stem}{SUFFIX}"


def _folders() -> Iterator[tuple[Origin, Path]]:
    with contextlib.suppress(ToolchainError):  # without a home there are none to be found
        yield "user", user_folder()
    yield "shipped", shipped_folder()


def _named() -> Iterator[tuple[str, Path, Origin]]:
    """Every preset that a bare name finds, first found first; a user's hides a shipped one."""
    seen: set[str] = set()
    for origin, folder in _folders():
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
            if path.stem not in seen:
                seen.add(path.stem)
                yield path.stem, path, origin


def find(name_or_path: str) -> Path:
    """The file that `--preset NAME` means: an existing file, then the user's presets, then the shipped.

    NAME may leave out ".toml". Raises UsageError with the nearest name where there is none.
    """
    given = paths.expanded(name_or_path)
    for candidate in (given, given.with_name(given.name + SUFFIX) if given.name else given):
        if paths.is_file(candidate):
            return candidate
    names = {name: path for name, path, _ in _named()}
    wanted = name_or_path.removesuffix(SUFFIX)
    if wanted in names:
        return names[wanted]
    if paths.is_folder(given):
        raise UsageError(f"{name_or_path} is a folder, not a preset.", remedy="Name a .toml file.")
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    raise UsageError(
        f"There is no preset {name_or_path!r}: no such file, and no preset of that name.",
        why=f"Presets by name: {', '.join(names) or 'none'}.",
        remedy=f"Did you mean {near[0]}?" if near else "See them all with: mlc-wizard --list-presets",
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' own editors write the mark
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}.",
            remedy="Save it as UTF-8; presets are TOML files.",
        ) from None
    return preset_schema.parsed(text, f"{path} is not valid TOML")


def load(name_or_path: str, overrides: Sequence[str] = ()) -> ExportPlan:
    """The plan of a preset, with each `--set section.key=value` of `overrides` on top.

    Raises UsageError naming file (or --set), key, what was found, what is allowed and the nearest.
    """
    path = find(name_or_path)
    return preset_schema.apply(_document(path), overrides, str(path), path.parent)


def loads(text: str, place: str, base: Path) -> ExportPlan:
    """The plan of the preset `text`, which came from `place`; a relative source is taken from `base`.

    Raises UsageError as `load` does.
    """
    document = preset_schema.parsed(text, f"{place} holds no valid preset")
    return preset_schema.apply(document, (), place, base)


def dumps(plan: ExportPlan) -> str:
    """`plan` as the text of a preset, every choice written out."""
    return tomli_w.dumps(preset_schema.document_of(plan))


def save(plan: ExportPlan, path: Path) -> None:
    """Write `plan` to `path`, whole or not at all; the folder is made where it is missing.

    Raises UsageError where the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(dumps(plan))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except UnicodeEncodeError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UsageError(
            f"The preset cannot be saved as {path}: a path in it is no Unicode text, as TOML needs.",
            remedy="Rename the folder, or choose another.",
        ) from None
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UsageError(
            f"The preset cannot be saved as {path}: {error.strerror or error}.",
            remedy="Choose another folder, or make room and check its permissions.",
        ) from None


def list_presets() -> list[PresetEntry]:
    """Every preset that a name finds; one that is broken is listed with the reason."""
    entries = []
    for name, path, origin in _named():
        try:
            plan = preset_schema.apply(_document(path), (), str(path), path.parent)
        except WizardError as error:
            entries.append(PresetEntry(name=name, path=path, origin=origin, error=str(error)))
        else:
            entries.append(PresetEntry(name=name, path=path, origin=origin, description=plan.description))
    return entries
