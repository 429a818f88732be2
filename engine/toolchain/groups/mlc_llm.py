"""The official compiler, in whichever interpreter has it."""

from engine.errors import ToolchainError
from engine.toolchain.finding import EVERY, Finding, Remedy, running
from engine.toolchain.probe import Probe, patience


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

    folder = place()
    told = (
        f"Make an environment for it, {folder}: its wheels bring a tvm of their own, which must not come "
        "into this one. An environment elsewhere has to be named: --set engine.interpreter=PATH"
    )
    try:
        return running(told, *own.commands(), environment=str(folder))
    except ToolchainError as error:
        return Remedy(told=f"{error.what} {error.remedy}")


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
