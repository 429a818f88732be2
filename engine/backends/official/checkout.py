"""Which mlc_llm a source checkout is: read from its files, as git may not be there."""

import re
from pathlib import Path

_VERSION = re.compile(r"^__version__\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_SHOWN = 8


def version(package: Path) -> str:
    """The version of the folder `package`, mlc_llm in a checkout: its commit, else the version it states.

    `mlc_llm/libinfo.py` states the same version for years; the commit tells one day from another. Changes
    that were not committed are not seen.
    """
    if commit := _commit(package):
        return f"checkout {commit[:_SHOWN]}"
    try:
        stated = _VERSION.search((package / "libinfo.py").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stated = None
    return f"checkout {stated[1]}" if stated else "checkout"


def _commit(package: Path) -> str:
    """The commit that is checked out; empty where `package` is in no repository of its own."""
    root = package.absolute().parents[1]  # a repository further up is of something else
    place = root / ".git"
    if not place.is_file():
        return _resolved(place)
    # A work tree or a submodule has its repository elsewhere.
    linked = re.match(r"gitdir: (.+)", _text(place))
    return _resolved(root / linked[1].strip()) if linked else ""


def _resolved(repository: Path) -> str:
    head = _text(repository / "HEAD").strip()
    if not head.startswith("ref: "):
        return head if _COMMIT.fullmatch(head) else ""
    name = head.removeprefix("ref: ")
    common = repository / (_text(repository / "commondir").strip() or ".")
    for place in (repository / name, common / name):
        if _COMMIT.fullmatch(found := _text(place).strip()):
            return found
    packed = re.search(
        rf"^({_COMMIT.pattern}) {re.escape(name)}$", _text(common / "packed-refs"), re.MULTILINE
    )
    return packed[1] if packed else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
