"""Errors a user can do something about.

WizardError                what happened, why, what to do, and the exit code of the command
├── UsageError             2: a flag, a preset or a model that cannot be what was meant
├── ToolchainError         3: something this machine lacks
├── NotAuthorizedError     4: the Hub refuses this user
├── StageError             1: a stage failed
│   └── HubUnreachable     1: the Hub gives no answer now
└── Cancelled            130: the user stopped the run
"""

from typing import Literal

Fix = Literal["", "output", "compile", "fresh", "resume"]
"""What a remedy turns at, where the ways to it differ: a flag on the command line, a key on a screen.

Another output folder; no library; every stage again; the same run once more.
"""


class WizardError(Exception):
    """A failure told in plain words.

    `what` says what happened, with the names and numbers at hand; `why` the usual cause, empty
    where `what` already says it; `remedy` what to do about it, as an instruction or a command that
    holds everywhere. How it is done here, each front end says from `fix`.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", remedy: str = "", fix: Fix = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy
        self.fix = fix

    def __str__(self) -> str:
        """The whole message, one part a line."""
        return "\n".join(part for part in (self.what, self.why, self.remedy) if part)


class UsageError(WizardError):
    """The request itself is wrong: a flag, a preset, a model folder."""

    exit_code = 2


class ToolchainError(WizardError):
    """Something that the chosen target needs is missing on this machine."""

    exit_code = 3


class NotAuthorizedError(WizardError):
    """The Hub wants a token, or the token may not read this model."""

    exit_code = 4


class StageError(WizardError):
    """A stage ran and failed."""

    exit_code = 1


class HubUnreachable(StageError):
    """The Hub cannot be asked now: no network, no answer in time, or forbidden by the user."""


class Cancelled(WizardError):
    """The user stopped the run."""

    exit_code = 130
