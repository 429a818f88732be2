"""What workers tell the screens; posted from threads, handled in the application's own."""

from dataclasses import dataclass

from textual.message import Message

from engine.errors import WizardError
from engine.events import Event
from engine.model.facts import ModelFacts


@dataclass
class FactsRead(Message):
    """The facts of `source`, read for a model type of `model_type`."""

    source: str
    model_type: str
    revision: str
    facts: ModelFacts


@dataclass
class FactsFailed(Message):
    """Why `source` cannot be read."""

    source: str
    model_type: str
    revision: str
    error: WizardError


@dataclass
class EngineEvent(Message):
    """An event of the run."""

    event: Event


@dataclass
class RunRefused(Message):
    """The run ended before its first event."""

    error: WizardError
