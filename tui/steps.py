"""The steps of an export, in order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step: its name in code, its title on the screen."""

    name: str
    title: str


STEPS = (
    Step("model", "Model"),
    Step("quantize", "Quantize"),
    Step("context", "Context"),
    Step("target", "Target"),
    Step("review", "Review"),
    Step("run", "Run"),
    Step("result", "Result"),
)
NAMES = tuple(step.name for step in STEPS)


def after(name: str) -> str | None:
    """The step after `name`; None after the last."""
    index = NAMES.index(name) + 1
    return NAMES[index] if index < len(NAMES) else None


def before(name: str) -> str | None:
    """The step before `name`; None before the first."""
    index = NAMES.index(name) - 1
    return NAMES[index] if index >= 0 else None
