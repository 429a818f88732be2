"""What is known about a failure: the texts that it is recognized by, and what to do about it."""

from dataclasses import dataclass

from engine.errors import StageError, WizardError
from engine.events import StageName

GAP = "…"
"""In a text, stands for anything in between."""


@dataclass(frozen=True, kw_only=True)
class Known:
    r"""A failure that users meet, and the texts by which its line in a log is recognized.

    A line must contain one of `texts`, as it is written, capitals included. Between the parts of a
    text that GAP separates anything may stand, and "\n" is the start or the end of the line. There
    are no regular expressions: looking for a text takes time linear in the line, whatever it holds.

    `title`, `cause` and `remedy` are the what, why and remedy of an `error`. The failure belongs to
    `stages`, `targets` and `backends`, each empty for all; only what a stage of a run says is chosen
    by them. `symptom`: the line also stands in logs of runs that succeed or fail for another reason,
    so it is told after the others, and never as the cause of a failed run.
    """

    code: str
    title: str
    texts: tuple[str, ...]
    cause: str
    remedy: str
    error: type[WizardError] = StageError
    stages: tuple[StageName, ...] = ()
    targets: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    symptom: bool = False

    def belongs(self, stage: StageName, target: str, backend: str) -> bool:
        """Whether `stage` of an export for `target` by `backend` can fail like this."""
        return (
            (not self.stages or stage in self.stages)
            and (not self.targets or target in self.targets)
            and (not self.backends or backend in self.backends)
        )
