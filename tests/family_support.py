"""What tests of model families share: configurations of the golden models, changed, and their decoders."""

import json
from typing import Any

from conftest import GOLDEN

from engine.embedded.source import decoder_of
from engine.embedded.spec import DecoderSpec, Parameter
from engine.model.config import normalise

Config = dict[str, Any]


def config_of(name: str, **changes: Any) -> Config:
    """The golden model's config.json, changed; None takes a key out."""
    stated = json.loads((GOLDEN / name / "hf" / "config.json").read_text()) | changes
    return {key: value for key, value in stated.items() if value is not None}


def decoder(name: str, **changes: Any) -> tuple[DecoderSpec, tuple[Parameter, ...]]:
    return decoder_of(normalise(config_of(name, **changes)))


def silent(*_: object) -> None:
    """No narration of progress."""
