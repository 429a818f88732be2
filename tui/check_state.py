"""The toolchain check as it goes on: what its screen draws. Nothing here knows a widget."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.toolchain import verdict
from engine.toolchain.check import Found, Started
from engine.toolchain.command import DEFAULT
from engine.toolchain.finding import Finding
from engine.toolchain.probe import Probe
from engine.toolchain.registry import PROBES
from engine.toolchain.verdict import Verdict


@dataclass
class CheckState:
    """What is known so far. Findings of an earlier check stay until the probe has looked again.

    `asked` are probes that are to look again, `at_work` those that do. `target` is the one whose parts are
    shown, empty for all.
    """

    findings: dict[str, Finding] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    at_work: set[str] = field(default_factory=set)
    target: str = ""
    _verdicts: tuple[Verdict, ...] = ()

    def ask(self, probes: Sequence[Probe]) -> list[Probe]:
        """These are to look again; those of them that are not asked to already."""
        fresh = [probe for probe in probes if probe.id not in self.asked]
        self.asked |= {probe.id for probe in fresh}
        return fresh

    def feed(self, event: Started | Found) -> str:
        """Take in an event of the check; the id of the row that changes."""
        if isinstance(event, Started):
            self.at_work.add(event.id)
            return event.id
        name = event.finding.id
        self.findings[name] = event.finding
        self._verdicts = ()
        self.forget(name)
        return name

    def forget(self, name: str) -> None:
        """The probe `name` looks no more."""
        self.at_work.discard(name)
        self.asked.discard(name)

    @property
    def shown(self) -> list[Probe]:
        """The probes of the target that is shown, in their order."""
        return [p for p in PROBES if not self.target or verdict.concerns(p, self.target)]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the findings mean so far; of probes that look again, the earlier ones count until then."""
        if not self._verdicts:  # every row asks
            pending = [probe for probe in PROBES if probe.id not in self.findings]
            self._verdicts = verdict.verdicts(self.findings.values(), pending)
        return self._verdicts

    def is_missed(self, finding: Finding) -> bool:
        """Whether a target cannot be made on account of it: the one shown, else one that always should be."""
        wanted = (self.target,) if self.target else DEFAULT
        return any(
            finding.id in ids
            for v in self.verdicts
            if v.target in wanted and not v.backends
            for ids in v.lacking.values()
        )

    def to_recheck(self, finding: Finding) -> list[Probe]:
        """What the remedy of `finding` may have changed: its group, and all that is not in order."""
        return [
            probe
            for probe in PROBES
            if probe.group == finding.group
            or (found := self.findings.get(probe.id)) is None
            or found.stands_in_the_way
        ]
