"""Run by the interpreter in question, by path: what of mlc_llm there is in it, step by step.

Each step writes one record (RFC 7464, as `engine.narrate` has them), flushed before the next
begins, so that a crash of the process tells which step it was. Only the standard library; any Python
from 3.8 on.

{"found": {...}}     versions of Python and distributions, and where the packages are; nothing is imported
{"step": {"name"}}   what is tried next: "tvm", "mlc_llm", or a subcommand's "--help"
{"help": {"of", "text"}}
{"failed": {"name", "kind", "message"}}
{"done": {"tvm"}}
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import os
import platform
import runpy
import sys
from pathlib import Path
from typing import Any

_OF_INTEREST = ("apache-tvm", "mlc-ai", "mlc-llm", "mlc-chat", "tvm")


def _tell(kind: str, body: dict[str, Any]) -> None:
    sys.stderr.flush()
    sys.stdout.write("\x1e" + json.dumps({kind: body}) + "\n")
    sys.stdout.flush()


def _distributions() -> dict[str, tuple[str, str]]:
    """Name -> (version, folder) of what is installed and may bring tvm or mlc_llm."""
    from importlib import metadata

    found: dict[str, tuple[str, str]] = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith(_OF_INTEREST):
            found.setdefault(name, (distribution.version, str(distribution.locate_file(""))))
    return found


def _origin(name: str) -> str:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "")


def _help(module: str, *arguments: str) -> str:
    """What `python -m MODULE ARGUMENTS` prints; its modules stay loaded for the next call."""
    printed = io.StringIO()
    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before
    return printed.getvalue()


def main() -> int:
    """Take the steps in order; the first that fails is the last."""
    here = Path(__file__).resolve().parent  # where Python before 3.11 looks first
    sys.path[:] = [path for path in sys.path if not path or Path(path).resolve() != here]
    modules = {name: _origin(name) for name in ("mlc_llm", "mlc_chat", "tvm")}
    _tell(
        "found",
        {
            "python": platform.python_version(),
            "executable": sys.executable,
            "machine": platform.machine(),
            "system": sys.platform,
            "distributions": _distributions(),
            "modules": modules,
        },
    )
    module = next((name for name in ("mlc_llm", "mlc_chat") if modules[name]), "")
    if not module or not modules["tvm"]:
        return 0
    step = ""
    try:
        for step in ("tvm", module):
            _tell("step", {"name": step})
            importlib.import_module(step)
        step = "--help"
        _tell("step", {"name": step})
        general = _help(module, "--help")
        _tell("help", {"of": "", "text": general})
        for command in ("convert_weight", "gen_config", "gen_mlc_chat_config", "compile"):
            if command in general:
                step = command + " --help"
                _tell("step", {"name": step})
                _tell("help", {"of": command, "text": _help(module, command, "--help")})
    except BaseException as error:
        _tell("failed", {"name": step, "kind": type(error).__name__, "message": str(error)[-2000:]})
        return 0
    _tell("done", {"tvm": str(getattr(sys.modules["tvm"], "__version__", ""))})
    # A library that crashes when Python unloads it, as some builds of TVM do, has told all by now.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
