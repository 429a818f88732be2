"""What a probe found, as data: the same for the screen, for `--check` and for its JSON.

This module and `verdict.py` are the stable part: names of fields are those of the JSON.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from engine.shell import shell_line

Status = Literal["ok", "warn", "missing", "broken"]
"""ok; usable, but something is to be known; not there; there, and of no use."""

Needs = Mapping[str, tuple[str, ...]]
"""Who needs it: targets by backend; "*" stands for every target that the backend compiles for."""

EVERY = "*"


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What helps: `told`, a sentence, and `commands`, lines for this machine's shell.

    `runs` are the same commands as argument vectors, in order, where they are safe to be run from here:
    they change nothing but packages of an environment, or a cache of our own. `environment` is the folder
    of the environment that they make or change, if another one may be named in its place.
    """

    told: str
    commands: tuple[str, ...] = ()
    runs: tuple[tuple[str, ...], ...] = ()
    environment: str = ""

    @property
    def safe(self) -> bool:
        """Whether the commands can be run from here, once somebody has agreed."""
        return bool(self.runs)

    def elsewhere(self, environment: str) -> "Remedy":
        """The same remedy for another environment, of which nothing is cleared away."""
        before = self.environment
        if not before or environment == before:
            return self
        return running(
            self.told.replace(before, environment),
            *(
                tuple(word.replace(before, environment) for word in argv if word != "--clear")
                for argv in self.runs
            ),
            environment=environment,
        )


NOTHING = Remedy(told="")


def running(told: str, *runs: tuple[str, ...], environment: str = "") -> Remedy:
    """A remedy that is safe to run from here."""
    return Remedy(told=told, commands=tuple(map(shell_line, runs)), runs=runs, environment=environment)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one probe found.

    `found` and `wanted` say what is there and what should be, `why` what it is for and what its state
    means. A finding that is missing or broken counts against `needed_for`, and against nothing else.
    """

    id: str
    group: str
    title: str
    status: Status
    found: str
    wanted: str = ""
    why: str = ""
    remedy: Remedy = NOTHING
    needed_for: Needs = field(default_factory=dict)

    @property
    def stands_in_the_way(self) -> bool:
        """Whether what needs it cannot be had."""
        return self.status in ("missing", "broken")

    def blocks(self, backend: str, target: str) -> bool:
        """Whether `backend` cannot make a library for `target` on account of this."""
        return self.stands_in_the_way and self.is_needed(backend, target)

    def is_needed(self, backend: str, target: str) -> bool:
        """Whether `backend` needs it for `target`, one that it compiles for."""
        return not {target, EVERY}.isdisjoint(self.needed_for.get(backend, ()))


def to_json(finding: Finding) -> dict[str, Any]:
    """`finding` as JSON has it; a remedy that is safe to run says so."""
    body = dataclasses.asdict(finding)
    body["remedy"]["safe"] = finding.remedy.safe
    return body


def from_json(body: Mapping[str, Any]) -> Finding:
    """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
    remedy = body["remedy"]
    if body["status"] not in get_args(Status):
        raise ValueError(body["status"])
    return Finding(
        **{name: str(body[name]) for name in ("id", "group", "title", "found", "wanted", "why")},
        status=body["status"],
        remedy=Remedy(
            told=str(remedy["told"]),
            commands=tuple(map(str, remedy["commands"])),
            runs=tuple(tuple(map(str, argv)) for argv in remedy["runs"]),
            environment=str(remedy["environment"]),
        ),
        needed_for={name: tuple(targets) for name, targets in body["needed_for"].items()},
    )
