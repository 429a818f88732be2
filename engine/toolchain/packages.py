"""Python packages: what is installed, which version is wanted, and how one is installed."""

import importlib.util
import re
import shutil
import sys
import tomllib
from pathlib import Path

from engine.toolchain.finding import Remedy, running

OURS = "mlc-wizard"
_CHECKOUT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def installed(distribution: str) -> str:
    """The version of `distribution` in this environment; "" where it is not there."""
    import importlib.metadata  # takes longer than most probes

    try:
        return importlib.metadata.version(distribution) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def pinned(distribution: str) -> str:
    """The version of `distribution` that this version of mlc-wizard is made for; "" where any will do."""
    for requirement in _requirements():
        found = re.match(r"([\w.-]+)\s*==\s*([\w.!+-]+)", requirement)
        if found and _plain(found.group(1)) == _plain(distribution):
            return found.group(2)
    return ""


def _requirements() -> list[str]:
    # A checkout may be newer than the installation that leads to it.
    if _CHECKOUT.is_file():
        project = tomllib.loads(_CHECKOUT.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == OURS:
            return list(project.get("dependencies", ()))
    import importlib.metadata

    try:
        return importlib.metadata.requires(OURS) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def place(distribution: str, module: str) -> Path:
    """Where the installed `distribution` has its top-level package `module`."""
    import importlib.metadata

    return Path(str(importlib.metadata.distribution(distribution).locate_file(module)))


def owners(module: str) -> tuple[str, ...]:
    """The distributions that have installed files into the top-level package `module`."""
    import importlib.metadata

    return tuple(sorted(set(importlib.metadata.packages_distributions().get(module, ()))))


def install(*distributions: str, told: str, again: bool = False) -> Remedy:
    """The remedy that installs `distributions`, at the versions wanted, into this environment.

    `again` replaces files of the same version, which may be damaged.
    """
    wanted = [f"{name}=={version}" if (version := pinned(name)) else name for name in distributions]
    if importlib.util.find_spec("pip") is not None:
        force: tuple[str, ...] = ("--force-reinstall", "--no-deps") if again else ()
        return running(told, (sys.executable, "-m", "pip", "install", *force, *wanted))
    if uv := shutil.which("uv"):
        force = tuple(f"--reinstall-package={name}" for name in distributions) if again else ()
        return running(told, (uv, "pip", "install", "--python", sys.executable, *force, *wanted))
    return Remedy(
        told=f"{told} This environment has no pip: install {' '.join(wanted)} with the tool that made it."
    )
