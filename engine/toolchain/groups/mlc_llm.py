"""The official compiler, in whichever interpreter has it."""

import os
from collections.abc import Sequence
from pathlib import Path

from engine.errors import ToolchainError
from engine.toolchain.finding import EVERY, Finding, Remedy, running
from engine.toolchain.probe import Probe, patience
from engine.toolchain.programs import ask, version_of


def _look(probe: Probe) -> Finding:
    from engine.backends.official.inspection import LIMIT_SECONDS, inspect
    from engine.backends.official.interpreter import find

    refused = []
    candidates = find()
    for candidate in candidates:
        inspection = inspect(candidate, limit_seconds=min(patience() / len(candidates), LIMIT_SECONDS))
        if inspection.works:
            old = inspection.cli is not None and inspection.cli.is_legacy
            return probe.finding(
                "warn" if old else "ok",
                inspection.told,
                why="It is older than the name mlc_llm; its libraries fit no runtime of today."
                if old
                else probe.why,
                remedy=own_environment() if old else Remedy(told=""),
            )
        refused.append(inspection)
    if not refused:
        return probe.finding("missing", "no interpreter here has it", remedy=own_environment())
    problem = refused[0].problem
    more = f"; {len(refused) - 1} more that do not work" if len(refused) > 1 else ""
    return probe.finding(
        "broken",
        f"{problem.what}{more}" if problem else refused[0].told,
        why=problem.why if problem and problem.why else probe.why,
        remedy=own_environment(),
    )


def own_environment() -> Remedy:
    """An environment of its own for mlc_llm, made from here; told only, where there are no wheels."""
    from engine.backends.official import own_environment as own
    from engine.backends.official.interpreter import own_environment as place

    try:
        folder = place()
        told = (
            f"Make an environment for it, {folder}: its wheels bring a tvm of their own, which must not come "
            "into this one. An environment elsewhere has to be named: --set engine.interpreter=PATH"
        )
        return running(told, *own.commands(flavour(own.flavours())), environment=str(folder))
    except ToolchainError as error:
        return Remedy(told=f"{error.what} {error.remedy}")


def flavour(offered: Sequence[str]) -> str:
    """Which of the `offered` builds of mlc_llm suits this machine: the newest CUDA or ROCm it runs, or cpu.

    NVIDIA's driver says up to which CUDA it goes; ROCm is what is installed.
    """
    asked = ask(["nvidia-smi"]) if any(name.startswith("cu") for name in offered) else None
    limits = {"cu": asked.version(r"CUDA Version:\s*(\d+\.\d+)") if asked else "", "rocm": _rocm()}
    for kind, limit in limits.items():
        fitting = [
            name for name in offered if _version(name, kind) and _version(name, kind) <= version_of(limit)
        ]
        if limit and fitting:
            return max(fitting, key=lambda name: _version(name, kind))
    return "cpu"


def _rocm() -> str:
    try:
        return Path(os.environ.get("ROCM_PATH") or "/opt/rocm", ".info", "version").read_text(
            encoding="utf-8"
        )
    except (OSError, ValueError):
        return ""


def _version(name: str, kind: str) -> tuple[int, ...]:
    """cu128 is CUDA 12.8, rocm62 is ROCm 6.2; nothing for builds of another kind."""
    digits = name.removeprefix(kind)
    return (int(digits[:-1]), int(digits[-1])) if name.startswith(kind) and digits.isdigit() else ()


PROBES = (
    Probe(
        id="mlc_llm",
        group="mlc_llm",
        title="mlc_llm",
        wanted="mlc_llm and its own tvm, of one day, in an environment apart from this one",
        why="The mlc_llm backend runs it: for targets, models and features that the embedded backend lacks.",
        needed_for={"mlc_llm": (EVERY,)},
        look=_look,
        seconds=120.0,
    ),
)
