"""What findings mean for each target: which backends can make a library for it here, or what is missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.catalog import COMPILED_HERE, TARGETS
from engine.toolchain.finding import EVERY, Finding
from engine.toolchain.probe import Probe

BACKENDS: Mapping[str, tuple[str, ...]] = {
    "embedded": COMPILED_HERE,
    "mlc_llm": tuple(TARGETS),
    "docker": tuple(target for target in TARGETS if target not in ("metal", "iphone")),
}
"""The targets that each backend compiles for, where it has all that it needs; the preferred one first."""

State = Literal["works", "missing", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a library for `target` can be made here.

    `backends` are those that can make it, the preferred one first; `lacking` says of each of the others
    which findings, by id, stand in its way. "unknown" until enough probes have ended.
    """

    target: str
    state: State
    backends: tuple[str, ...]
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sentence(self, parts: Mapping[str, Probe]) -> str:
        """The verdict in words; `parts` are the probes by id.

        Of a group, the first part that is lacking is named: the others are of it, or need it.
        """
        if self.state == "unknown":
            return "not known yet"
        if self.backends:
            return f"works with {_listed([f'the {name}' for name in self.backends])} backend"
        if not self.lacking:
            return "no backend of this version compiles for it; weights and configuration can be made"
        told = []
        for backend, names in self.lacking.items():
            first = {parts[name].group: parts[name].title for name in reversed(names)}
            told.append(f"the {backend} backend lacks {_listed(list(reversed(first.values())))}")
        return "; ".join(told)


def verdicts(findings: Iterable[Finding], pending: Iterable[Probe] = ()) -> tuple[Verdict, ...]:
    """A verdict for each target of the catalog; `pending` are probes that have not ended."""
    found, waiting = tuple(findings), tuple(pending)
    return tuple(_of(target, found, waiting) for target in TARGETS)


def covering(target: str) -> list[str]:
    """The backends that compile for `target`."""
    return [backend for backend, targets in BACKENDS.items() if target in targets]


def concerns(probe: Probe, target: str) -> bool:
    """Whether `probe` bears on `target`: a backend that compiles for it needs it, or it is good to know."""
    if not probe.needed_for:
        return not probe.of_use or target in probe.of_use
    return any({target, EVERY} & set(probe.needed_for.get(backend, ())) for backend in covering(target))


def possible(findings: Sequence[Finding], targets: Sequence[str], *, backend: str | None = None) -> bool:
    """Whether a library for each of `targets` can be made, by `backend` where one is named."""
    by_target = {verdict.target: verdict for verdict in verdicts(findings)}
    return all(
        backend in by_target[target].backends if backend else by_target[target].state == "works"
        for target in targets
    )


def to_json(verdict: Verdict) -> dict[str, Any]:
    """`verdict` as JSON has it."""
    return {
        "target": verdict.target,
        "state": verdict.state,
        "backends": list(verdict.backends),
        "lacking": {backend: list(ids) for backend, ids in verdict.lacking.items()},
    }


def _of(target: str, findings: Sequence[Finding], pending: Sequence[Probe]) -> Verdict:
    can, lacking, open_ = [], {}, False
    for backend in covering(target):
        blocking = tuple(finding.id for finding in findings if finding.blocks(backend, target))
        if blocking:
            lacking[backend] = blocking
        elif any({target, EVERY} & set(probe.needed_for.get(backend, ())) for probe in pending):
            open_ = True
        else:
            can.append(backend)
    state: State = "works" if can else "unknown" if open_ else "missing"
    return Verdict(target=target, state=state, backends=tuple(can), lacking=lacking)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
