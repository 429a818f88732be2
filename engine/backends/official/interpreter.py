"""Interpreters that may have mlc_llm: found by looking at files, nothing is run."""

import contextlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine import paths
from engine.errors import ToolchainError

Origin = Literal["named", "PATH", "active", "this", "own", "checkout"]
AUTO = "auto"
MODULES = ("mlc_llm", "mlc_chat")
"""The package today, and as it was called until March 2024."""
SOURCE_VARIABLE = "MLC_LLM_SOURCE_DIR"
HOME_VARIABLE = "MLC_WIZARD_MLC_LLM"

_WINDOWS = sys.platform == "win32"
_LONGEST_SHEBANG = 4096
# What pip writes where a shebang would be too long, or the path has a space.
_EXEC = re.compile(r"^'''exec' (?:\"([^\"]+)\"|(\S+)) ")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An interpreter that may have mlc_llm.

    `python` is its executable, which need not exist where a plan names it. `origin` says how it was
    found: the plan names it; a launcher on PATH; an activated environment; this very environment;
    the environment that this program made for mlc_llm; a source checkout for this environment.
    `launcher` is the mlc_llm or mlc_chat command that led to it, `checkout` the folder `python/` of a
    source checkout, which goes before all else on its path.
    """

    python: Path
    origin: Origin
    launcher: Path | None = None
    checkout: Path | None = None

    @property
    def told(self) -> str:
        """Where it is and how it was found, in words."""
        how = {
            "named": "engine.interpreter names it",
            "PATH": f"{self.launcher} on PATH belongs to it",
            "active": "its environment is active",
            "this": "mlc-wizard runs in it",
            "own": "mlc-wizard made it for mlc_llm",
            "checkout": f"with the checkout {self.checkout}",
        }
        return f"{self.python} ({how[self.origin]})"


def find(interpreter: str = AUTO) -> tuple[Candidate, ...]:
    """The interpreters that may have mlc_llm, the most likely meant first.

    `interpreter` is what a plan names: the executable, its virtual environment's folder, or the
    launcher `mlc_llm` in it; it is then the only one. "auto" looks for launchers on PATH, in active
    environments, in this one, in the one this program made, and for a source checkout.
    """
    if interpreter != AUTO:
        return (_named(paths.expanded(interpreter)),)
    found: dict[Path, Candidate] = {}
    for candidate in _likely():
        found.setdefault(_identity(candidate.python), candidate)
    return tuple(found.values())


def own_environment() -> Path:
    """The virtual environment that this program makes for mlc_llm; MLC_WIZARD_MLC_LLM moves it.

    Raises ToolchainError where a user without a home has not moved it.
    """
    chosen = os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    return paths.of_user("data") / "mlc_llm"


def python_of(environment: Path) -> Path:
    """The interpreter of the environment in that folder: a virtual one, or conda's."""
    if not _WINDOWS:
        return environment / "bin" / "python"
    virtual, conda = environment / "Scripts" / "python.exe", environment / "python.exe"
    return conda if conda.is_file() and not virtual.is_file() else virtual


def _likely() -> Iterator[Candidate]:
    for module in MODULES:
        if (launcher := shutil.which(module)) and (python := interpreter_of(Path(launcher))):
            yield Candidate(python=python, origin="PATH", launcher=Path(launcher))
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if (active := os.environ.get(variable)) and _holds(Path(active), *MODULES):
            yield Candidate(python=python_of(Path(active)), origin="active")
    this = Path(sys.executable)
    if any(importlib.util.find_spec(module) for module in MODULES):
        yield Candidate(python=this, origin="this")
    with contextlib.suppress(ToolchainError):
        if (python := python_of(own_environment())).is_file():
            yield Candidate(python=python, origin="own")
    source = os.environ.get(SOURCE_VARIABLE)
    if source and (checkout := Path(source).absolute() / "python").joinpath("mlc_llm").is_dir():
        for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
            if (active := os.environ.get(variable)) and _holds(Path(active), "tvm"):
                yield Candidate(python=python_of(Path(active)), origin="checkout", checkout=checkout)
        yield Candidate(python=this, origin="checkout", checkout=checkout)


def _named(path: Path) -> Candidate:
    path = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would leave a virtual environment
    if paths.is_folder(path):
        return Candidate(python=python_of(path), origin="named")
    if path.stem in MODULES and (python := interpreter_of(path)):
        return Candidate(python=python, origin="named", launcher=path)
    return Candidate(python=path, origin="named")


def interpreter_of(launcher: Path) -> Path | None:
    """The interpreter that the console script `launcher` runs in, None where that cannot be told."""
    if _WINDOWS:
        beside = (launcher.parent / "python.exe", launcher.parent.parent / "python.exe")
    else:
        if (stated := _shebang(launcher)) is not None:
            return stated
        beside = (launcher.resolve().parent / "python", launcher.parent / "python")
    return next((path for path in beside if path.is_file()), None)


def _shebang(script: Path) -> Path | None:
    """What the first lines of `script` run it with, where that is a Python."""
    try:
        with script.open("rb") as file:
            first, second = (
                file.readline(_LONGEST_SHEBANG).decode("utf-8", "surrogateescape") for _ in range(2)
            )
    except OSError:
        return None
    if match := _EXEC.match(second):
        return Path(match[1] or match[2])
    if not first.startswith("#!"):
        return None
    program, _, argument = first[2:].strip().partition(" ")
    if Path(program).name == "env":
        found = shutil.which(argument.split()[-1]) if argument else None
        program = found or ""
    return Path(program) if Path(program).name.startswith(("python", "pypy")) else None


def _holds(environment: Path, *packages: str) -> bool:
    """Whether the environment in that folder has one of `packages`."""
    places = (*environment.glob("lib/python3*/site-packages"), environment / "Lib" / "site-packages")
    return any((place / package).is_dir() for place in places for package in packages)


def _identity(python: Path) -> Path:
    """Two paths of one executable in one environment are equal by this; links are not followed further."""
    return python.parent.resolve() / python.name.rstrip("0123456789.")
