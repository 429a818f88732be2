"""What tests of the steps share: drafts of the demo and of a model on the Hub, and its facts."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from native_libraries import program
from published_models import GEMMA
from textual.pilot import Pilot
from tui_support import settled

from engine import choices
from engine.errors import UsageError, WizardError
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, ExportPlan
from tui.app import WizardApp
from tui.draft import Draft
from tui.screens import quantize


@pytest.fixture(autouse=True)
def home(wizard_home: Path) -> Path:
    return wizard_home


def draft(**changes: Any) -> Draft:
    """A draft that has come as far as the review, of the demo model unless `source` says otherwise."""
    found = Draft.from_plan(
        ExportPlan(**({"source": BUILTIN_DEMO, "quantization": "q4f32_1", "output": Path("out")} | changes))
    )
    found.done |= {"review"}
    return found


def gemma(**changes: Any) -> Draft:
    """A draft of a model on the Hub; its facts come with `know`, as if it were in the Hub's cache."""
    return draft(**({"source": "google/gemma-3-270m-it", "quantization": "q4f16_1"} | changes))


async def know(pilot: Pilot[Any], facts: ModelFacts = GEMMA) -> None:
    """The facts of the draft's model have been read."""
    app = pilot.app
    assert isinstance(app, WizardApp)
    app.draft.facts = facts
    app.show_draft()
    await settled(pilot)


def step_of(app: WizardApp) -> str:
    return str(getattr(app.screen, "STEP", ""))


@pytest.fixture
def without_q4f16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that has no q4f16_1."""

    def refuse(plan: ExportPlan, facts: ModelFacts | None) -> WizardError | None:
        absent = plan.quantization == "q4f16_1"
        return UsageError("This backend has no q4f16_1.", why="It is a test.") if absent else None

    offered = partial(choices.quantization_choices, refuse=refuse)
    monkeypatch.setattr(quantize, "quantization_choices", offered)


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's compiler, as far as looking for it goes."""
    program(tmp_path / "cuda", "nvcc", "")
    monkeypatch.setenv("PATH", str(tmp_path / "cuda"), prepend=os.pathsep)
