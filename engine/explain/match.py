"""Known failures in lines, as they come."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.explain.browsers import BROWSERS
from engine.explain.containers import CONTAINERS
from engine.explain.devices import DEVICES
from engine.explain.known import GAP, Known
from engine.explain.models import MODELS
from engine.explain.noise import is_noise
from engine.explain.toolchains import TOOLCHAINS

KNOWN: tuple[Known, ...] = (*TOOLCHAINS, *CONTAINERS, *MODELS, *DEVICES, *BROWSERS)
"""Every failure that is known; codes are unique."""

QUOTED = "The line that tells: "
"""Precedes a line of a log in our own messages: in a log that has these, it is no second line of it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A known failure in a log: the `line` and its number (from 1) where it was met last.

    `count` lines are of it; `fit` is how many characters of the last one were recognized.
    """

    known: Known
    number: int
    line: str
    count: int
    fit: int


class _Text:
    """One text of one known failure, cut at its gaps."""

    def __init__(self, known: Known, text: str) -> None:
        self.known = known
        self.parts = text.split(GAP)
        self.needle = max(self.parts, key=len)
        self.fit = sum(map(len, self.parts))

    def stands_in(self, line: str) -> bool:
        """Whether `line`, with a line feed at both ends, has all parts in their order."""
        start = 0
        for part in self.parts:
            start = line.find(part, start)
            if start < 0:
                return False
            start += len(part)
        return True


class Matcher:
    """Takes in the lines of a log in their order, any number at a time, and keeps what it knows.

    Memory does not grow with the log. Lines are without terminal codes; noise is passed over.
    """

    def __init__(self, known: Iterable[Known] = KNOWN) -> None:
        self._texts = [_Text(entry, text) for entry in known for text in entry.texts]
        self._found: dict[str, Finding] = {}
        self.lines = 0

    def feed(self, lines: Sequence[str]) -> None:
        """Look at `lines`."""
        first, self.lines = self.lines + 1, self.lines + len(lines)
        # Nearly all batches have nothing of interest: one search per text over all lines finds out.
        batch = "\n" + "\n".join(lines) + "\n"
        likely = [text for text in self._texts if text.needle in batch]
        if likely:
            for number, line in enumerate(lines, first):
                self._look(number, line, likely)

    def _look(self, number: int, line: str, likely: Sequence[_Text]) -> None:
        framed = f"\n{line}\n"
        best: dict[str, _Text] = {}
        for text in likely:
            if text.stands_in(framed):
                code = text.known.code
                best[code] = max(best.get(code, text), text, key=lambda candidate: candidate.fit)
        if not best or is_noise(line) or QUOTED in line:
            return
        for code, text in best.items():
            before = self._found.get(code)
            self._found[code] = Finding(
                known=text.known,
                number=number,
                line=line.strip(),
                count=1 + (before.count if before else 0),
                fit=text.fit,
            )

    def findings(self) -> list[Finding]:
        """What was found, the most likely cause first.

        Symptoms come last. Of the others, what stands last in the log comes first, for it is what
        ended the program; within one line, what recognizes more of it.
        """
        return sorted(self._found.values(), key=lambda f: (f.known.symptom, -f.number, -f.fit))

    def cause(self) -> Finding | None:
        """The most likely cause, if it is more than a symptom."""
        return next((found for found in self.findings() if not found.known.symptom), None)
