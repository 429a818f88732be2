"""What workers tell the screens; posted from threads, handled in the application's own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    # The first screen is drawn before any of it is needed.
    from engine.errors import WizardError
    from engine.events import Check, Event
    from engine.model.facts import ModelFacts
    from engine.model.nearby import Nearby
    from engine.run.resume import Unfinished
    from engine.toolchain.check import Found, Started
    from engine.toolchain.remedies import Begun, Ended, Said


@dataclass
class FactsRead(Message):
    """The facts of `source`, read for a model type of `model_type`.

    `more` says that others follow; until then these serve where they are `usable`.
    """

    source: str
    model_type: str
    revision: str
    facts: "ModelFacts"
    more: bool = False
    usable: bool = True


@dataclass
class FactsFailed(Message):
    """Why `source` cannot be read."""

    source: str
    model_type: str
    revision: str
    error: "WizardError"


@dataclass
class EngineEvent(Message):
    """An event of the run."""

    event: "Event"


@dataclass
class RunRefused(Message):
    """The run ended before its first event."""

    error: "WizardError"


@dataclass
class UnfinishedFound(Message):
    """The runs in this folder that were not finished."""

    unfinished: "list[Unfinished]"


@dataclass
class NearbyFound(Message):
    """The models that are on this machine already."""

    models: "list[Nearby]"


@dataclass
class VerifySaid(Message):
    """A check of a finished export, made again."""

    check: "Check"


@dataclass
class VerifyEnded(Message):
    """All checks were made again, or `error` says why not."""

    error: "WizardError | None"


@dataclass
class FolderRefused(Message):
    """Why the desktop does not show a folder."""

    error: "WizardError"


@dataclass
class CheckSaid(Message):
    """A probe of the toolchain check has begun or ended."""

    event: "Started | Found"


@dataclass
class CheckEnded(Message):
    """The probes `ids` are at work no more."""

    ids: tuple[str, ...]


@dataclass
class RemedySaid(Message):
    """A remedy goes on."""

    event: "Begun | Said | Ended"
