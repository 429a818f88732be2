"""The remedy where no mlc_llm is found: an environment of its own for it, apart from ours.

Functions give commands and run none; whoever runs them shows them first.
"""

import os
import platform
import sys
from pathlib import Path

from engine.backends.official.interpreter import HOME_VARIABLE, own_environment, python_of
from engine.errors import ToolchainError

WHEELS = "https://mlc.ai/wheels"
"""Where the wheels are; --find-links, as it is a page of links and no index."""
FLAVOURS = ("cpu", "cu128", "cu130", "rocm61", "rocm62")
"""The builds for Linux (docs/install/mlc_llm.rst of mlc-llm). macOS (with Metal) and Windows (with Vulkan)
have `cpu` alone, which on Linux has Vulkan too."""


def commands(
    flavour: str = "cpu",
    *,
    environment: Path | None = None,
    links: str = WHEELS,
    base: Path | None = None,
) -> tuple[tuple[str, ...], ...]:
    """The commands that make `environment` (our own by default) and install mlc_llm there, in order.

    The one at its usual place is made anew, others are only added to. `flavour` is one of FLAVOURS that
    this system has, `links` where the wheels are found, `base` the Python that the environment is made
    from, this one by default.

    Raises ToolchainError where there are no such wheels for this system.
    """
    check(flavour)
    folder = environment or own_environment()
    python = str(python_of(folder))
    anew = ("--clear",) if environment is None and HOME_VARIABLE not in os.environ else ()
    return (
        (str(base or sys.executable), "-m", "venv", *anew, str(folder)),
        (
            *(python, "-m", "pip", "install", "--pre", "--upgrade", "-f", links),
            *(f"mlc-llm-nightly-{flavour}", f"mlc-ai-nightly-{flavour}"),
        ),
    )


def flavours() -> tuple[str, ...]:
    """The builds of mlc_llm that exist for this system and processor; empty where there are none."""
    machine = platform.machine().lower()
    if sys.platform == "darwin":
        return ("cpu",) if machine == "arm64" else ()
    if sys.platform == "win32":
        return ("cpu",) if machine in ("amd64", "x86_64") else ()
    return FLAVOURS if machine in ("x86_64", "amd64") else ()


def check(flavour: str) -> None:
    """Raise ToolchainError where there are no wheels of `flavour` for this system."""
    offered = flavours()
    here = f"{platform.system()} on {platform.machine()}"
    if not offered:
        raise ToolchainError(
            f"There are no wheels of mlc_llm for {here}.",
            why="They are built for Linux and Windows on x86-64 and for macOS on Apple silicon.",
            remedy="Build mlc_llm from source and name its interpreter with engine.interpreter, or use the "
            "docker backend.",
        )
    if flavour not in offered:
        raise ToolchainError(
            f"There are no wheels of mlc_llm called {flavour!r} for {here}.",
            why=f"There are: {', '.join(offered)}.",
        )
