"""What a probe is: what is known of it before it has looked, and the function that looks."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from engine.toolchain.finding import NOTHING, Finding, Needs, Remedy, Status

SECONDS = 10.0
"""How long a probe may take; what it starts gets somewhat less, so that it can say who did not answer."""

_limit: ContextVar[float] = ContextVar("limit", default=SECONDS)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One row of the check. `look` runs in a child of its own, so that it may import or crash as it likes.

    `why` says what the part is for, `needed_for` who cannot do without it; `of_use` names the targets that
    it is good to know for, all where it is empty. `seconds` is the limit; `at_worst` is the status of a
    probe that does not come to its end. Probes of a group with the same `child`, unless it is empty, share
    one: they need the same import, which takes longer than all else. They look in the order of `turn`.
    """

    id: str
    group: str
    title: str
    why: str
    look: Callable[["Probe"], Finding]
    wanted: str = ""
    needed_for: Needs = field(default_factory=dict)
    of_use: tuple[str, ...] = ()
    seconds: float = SECONDS
    at_worst: Status = "broken"
    child: str = ""
    turn: int = 0

    def finding(self, status: Status, found: str, *, remedy: Remedy = NOTHING, **changed: Any) -> Finding:
        """A finding of this probe; `changed` are fields that depend on what was found."""
        fields = {"wanted": self.wanted, "why": self.why, "needed_for": self.needed_for} | changed
        return Finding(
            id=self.id,
            group=self.group,
            title=self.title,
            status=status,
            found=found,
            remedy=remedy,
            **fields,
        )


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Programs that a probe asks within the block have a little less than `seconds`."""
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def patience() -> float:
    """How long a program may take to answer, in seconds."""
    return _limit.get() * 0.7
