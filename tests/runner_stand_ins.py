"""Programs in place of the stages, for how processes behave; never for what they make."""

import sys

from engine.backends.base import Folders, StageCommand
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan


class Printing:
    """A backend whose one stage is the Python program `code`; its argument is the folder to write in."""

    name = "stand-in"

    def __init__(self, code: str) -> None:
        self.code = code

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Everything is possible."""

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:  # noqa: ARG002
        """One stage."""
        folder = str(folders.building("convert_weight"))
        argv = (sys.executable, "-P", "-c", self.code, folder)
        return (StageCommand(stage="convert_weight", argv=argv),)
