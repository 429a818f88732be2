"""The official mlc_llm in the image: what it is, looked into in a container."""

import sys
import threading
from pathlib import Path

from engine.backends.docker.inspection import Image, Unasked
from engine.backends.official.inspection import Inspection, inspect
from engine.backends.official.interpreter import Candidate
from engine.narrate import RECORDS_VARIABLE

PYTHON, PROBE = "/opt/mlc-llm/bin/python", "/opt/mlc-llm/probe.py"
"""Where docker/Dockerfile.mlc puts its environment, and what finds out about it."""

CLIENT = (sys.executable, "-P", "-m", "engine.backends.docker")

_known: dict[str, Inspection] = {}
_lock = threading.Lock()


def look(image: Image, *, wait: bool = True) -> Inspection:
    """What the mlc_llm of `image` is; takes seconds, once for an image. What is wrong is its `problem`.

    Raises Unasked without `wait` where nobody has looked yet.
    """
    if not wait and image.id not in _known:
        raise Unasked("Nobody has looked into the image yet.")
    with _lock:
        if image.id not in _known:
            name = f"mlc-wizard-look-{image.id[-12:]}"
            argv = (
                *(*CLIENT, "run", "--rm", "-i", "--name", name, "--pull", "never", "--network", "none"),
                *("-e", RECORDS_VARIABLE, image.name, "run", PYTHON, PROBE),
            )
            _known[image.id] = inspect(candidate(), argv=argv)
        return _known[image.id]


def candidate() -> Candidate:
    """Its interpreter, by its place in the image."""
    return Candidate(python=Path(PYTHON), origin="named")
