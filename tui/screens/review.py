"""The step Review: the whole plan, what it takes of this machine, and the exact commands."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import HorizontalGroup, VerticalGroup
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from engine import machine, paths
from engine.advice import Advice, advise
from engine.backends.base import library_name
from engine.choices import taken
from engine.errors import UsageError, WizardError
from engine.estimate import Estimate, estimate
from engine.machine import Machine
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan, with_defaults
from engine.run.job import placeholders_told, prepare
from engine.run.state import File
from engine.run.workspace import Workspace
from engine.shell import shell_line
from engine.units import megabytes
from tui import describe, symbols
from tui.pasted import path_of
from tui.screens import save
from tui.screens.advised import AdvisedStep
from tui.widgets.advice_box import AdviceBox
from tui.widgets.rows import Rows

_INDENT = 4
TO_FOLDER = "review.folder"
"""In `Draft.notes` for a visit that is about the output folder."""
_PAUSE = 0.15
"""Seconds without a key before the disk is asked about what was typed."""


@dataclass
class Reviewed(Message):
    """What was found about `plan`: its commands as lines of a shell, or the error that stands against it.

    `placeholders` says what stands in them for folders that are not known yet; `files` are those of an
    earlier export in the same folder.
    """

    plan: ExportPlan
    machine: Machine | None = None
    reason: str = ""
    commands: tuple[str, ...] = ()
    placeholders: str = ""
    files: tuple[File, ...] = ()
    error: WizardError | None = None


def review(plan: ExportPlan) -> Reviewed:
    """Ask everything that a run would ask before it begins. Writes nothing."""
    here = None
    try:
        here = machine.inspect(plan.output)
        job = prepare(plan)
        files = Workspace.look(job.output, library_name(plan))
    except WizardError as error:
        return Reviewed(plan, here, error=error)
    except OSError as error:
        told = WizardError(
            f"{plan.output}: {error.strerror or error}.", remedy="Choose another folder.", fix="output"
        )
        return Reviewed(plan, here, error=told)
    commands = job.commands()
    return Reviewed(
        plan,
        here,
        reason=job.reason,
        commands=tuple(shell_line(command.argv) for command in commands),
        placeholders=placeholders_told(commands),
        files=tuple(files),
    )


def output_told(found: Reviewed | None) -> str:
    """What the output folder holds, and what the run does about it."""
    if found is None or found.error is not None:
        return ""
    if not found.files:
        return "Made by the run, stage by stage."
    size = megabytes(sum(file.size for file in found.files))
    return (
        f"Holds an export made here, {len(found.files)} files of {size}: stages that nothing changed for are "
        "not run again, the others replace their files."
    )


def machine_rows(sizes: Estimate | None, here: Machine | None) -> list[describe.Row]:
    """What the run takes of this machine, each with whether it is there."""
    if here is None:
        return [("machine", "being asked")]
    if sizes is None:
        free = f"{megabytes(here.disk_free)} free, and what is needed is known with the model"
        return [("disk", free)]
    needed = sizes.disk_needed_bytes + (sizes.fetch_bytes if here.cache_free is None else 0)
    fits = {
        "fetch": here.cache_free is None or sizes.fetch_bytes <= here.cache_free,
        "disk": needed <= here.disk_free,
        "memory": sizes.convert_ram_bytes <= here.ram_available,
    }
    return [
        (label, f"{symbols.DONE if fits[label] else symbols.WARNING} {told}")
        for label, told in describe.against_machine(sizes, here)
    ]


class Commands(Static, can_focus=True):
    """The commands of a run as lines of a shell; it has the focus only to be scrolled to."""

    def __init__(self) -> None:
        super().__init__(id="commands", classes="box", markup=False)
        self.border_title, self.border_subtitle = "The same in a shell", "c  copy"
        self._found: Reviewed | None = None

    def show(self, found: Reviewed | None) -> None:
        """Draw what was found, None while it is being looked for."""
        self._found = found
        self._draw()

    def on_resize(self) -> None:
        """What is long breaks elsewhere."""
        self._draw()

    def _draw(self) -> None:
        found, width = self._found, max(self.scrollable_content_region.width, 12)
        if found is None or found.error is not None:
            self.update("Looking." if found is None else "There are none while the plan cannot be run.")
            return
        lines = []
        for command in found.commands:
            first, *rest = describe.broken(command, max(width - _INDENT, 8))
            lines += [first, *(f"{'':{_INDENT}}{part}" for part in rest)]
        if found.placeholders:
            lines += ["", *wrap(f"({found.placeholders}.)", width)]
        self.update("\n".join(lines))


class ReviewScreen(AdvisedStep):
    """Review."""

    STEP = "review"
    AUTO_FOCUS = ""
    FIRST_KEYS = ("run",)
    HELP = """## Review

Everything that was decided, what it comes to, and what this machine has for it.

**Commands** are exactly what the run runs, one after the other, and what the log holds: copied into a
shell they do the same; `c` goes there and copies them. A preset (`ctrl+s`) keeps all choices, and
`mlc-wizard --preset` repeats them.

**Advice** never blocks. `u` takes the first better choice, tab goes to the others.

`o` goes to the output folder, `r` or `ctrl+r` runs.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r,r", "run", "Run", key_display="^r", id="run", tooltip="Run this export"),
        # A key that may be held down to go through the steps begins no download of gigabytes.
        Binding("ctrl+n", "next", "Next", show=False),
        Binding("ctrl+s", "save", "Save preset", id="save", tooltip="Keep these choices as a preset"),
        Binding("c", "copy", "Commands", id="copy", tooltip="Show the commands, and copy them"),
        Binding("down,j", "scroll_body(1)", "Down", show=False),
        Binding("up,k", "scroll_body(-1)", "Up", show=False),
        Binding("o", "output", "Folder", id="output", show=False, tooltip="Choose the output folder"),
        Binding("p", "plan", "Plan", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._found: Reviewed | None = None
        self._asking: Timer | None = None
        self._going_on = False

    def compose_body(self) -> ComposeResult:
        """Output, plan and machine, advice, commands."""
        yield Static(id="refused", classes="box error", markup=False)
        with VerticalGroup(classes="box", id="output"):
            yield Input(id="folder", compact=True)
            yield Static(id="output-told", classes="muted", markup=False)
        with HorizontalGroup(id="plan"):
            yield Rows("Plan", id="decisions")
            yield Rows("Estimate", id="estimates")
        yield Rows("This machine", id="machine")
        yield AdviceBox()
        yield Commands()

    def on_enter(self) -> None:
        """Show the draft and ask about it."""
        self.query_one("#output").border_title = "Output folder"
        self.query_one("#output").border_subtitle = "o  change"
        self.query_one("#refused").border_title = f"{symbols.FAILED} This cannot be run"
        self.query_one("#refused").display = False
        if self.draft.notes.pop(TO_FOLDER, False):
            self.action_output()
        super().on_enter()

    @property
    def _facts(self) -> ModelFacts | None:
        facts = self.draft.facts
        return facts if facts is not None and facts.spec is not None else None

    @property
    def _current(self) -> Reviewed | None:
        """What was found, where it is still about the plan."""
        found = self._found
        return found if found is not None and found.plan == self.draft.plan() else None

    @property
    def complete(self) -> bool:
        """The run can begin."""
        return not self.why_incomplete()

    def why_incomplete(self) -> str:
        """What stands in the way."""
        if error := self._against():
            return describe.for_screen(error)
        return "" if self._current else "The plan is still being looked at."

    def _against(self) -> WizardError | None:
        """What is known to stand against a run."""
        found, problems = self._current, self.draft.problems()
        return problems[0] if problems else found.error if found else None

    def advice(self) -> list[Advice]:
        """All of it, with what this machine has."""
        found = self._current
        return advise(
            taken(self.draft.plan(), self.draft.facts), self._facts, found.machine if found else None
        )

    def draw(self) -> None:
        """Show what is known, and ask for what is not."""
        if self._asking is not None:
            self._asking.stop()
        if self._current is None and self._found is None:
            self._ask(self.draft.plan())
        elif self._current is None:
            self._asking = self.set_timer(_PAUSE, lambda: self._ask(self.draft.plan()))
        self._show()

    def _show(self) -> None:
        plan, facts, found = self.draft.plan(), self._facts, self._current
        folder = self.query_one("#folder", Input)
        folder.placeholder = str(plan.output)
        if not folder.has_focus:
            with folder.prevent(Input.Changed):
                folder.value = str(plan.output)
        self.query_one("#output-told", Static).update(output_told(found))
        refused = self.query_one("#refused", Static)
        against = self._against()
        refused.display = against is not None
        refused.update(describe.for_screen(against) if against else "")
        filled = with_defaults(plan, facts.max_context if facts else None)
        sizes = estimate(facts, filled) if facts else None
        known = describe.estimates(sizes) if sizes else [("", "known once the model has been read")]
        self.query_one("#decisions", Rows).show(
            [row for row in describe.decisions(filled) if row[0] != "output"]
        )
        self.query_one("#estimates", Rows).show(known)
        told = found.reason.replace(" backend: ", ": ", 1) if found else ""
        reason = [("backend", told)] if told else []
        self.query_one("#machine", Rows).show(machine_rows(sizes, found.machine if found else None) + reason)
        self.query_one(Commands).show(found)

    @work(thread=True, exclusive=True, exit_on_error=False, group="review")
    def _ask(self, plan: ExportPlan) -> None:
        self.post_message(review(plan))

    @on(Reviewed)
    def _answered(self, message: Reviewed) -> None:
        self._found = message
        self.draft_changed()
        if self._going_on and self._current is not None:
            self.action_run()

    def action_next(self) -> None:
        """What comes next is for deciding."""
        self.notify("ctrl+r runs this export.")

    def action_run(self) -> None:
        """Run; where the plan is still being looked at, as soon as it was."""
        self._going_on = self._current is None and self._against() is None
        if not self._going_on:
            super().action_next()

    @on(Input.Changed, "#folder")
    def _typed(self, event: Input.Changed) -> None:
        self._going_on = False
        text = event.value.strip()
        if text:
            self.draft.choose(output=_folder(path_of(text)))
        else:
            self.draft.reset("output")

    @on(Input.Submitted, "#folder")
    def _submitted(self) -> None:
        self.set_focus(None)

    def action_scroll_body(self, lines: int) -> None:
        """Scroll, as nothing in particular has the focus here."""
        self.query_one("#body").scroll_relative(y=2 * lines, animate=False)

    def action_output(self) -> None:
        """Choose another output folder."""
        self.query_one("#folder").focus()

    def action_save(self) -> None:
        """Keep the choices as a preset."""
        plan = save.replayable(self.draft.plan(), self.draft.facts)
        save.offer(self, plan, self.draft.preset, saved=lambda path: self.draft.saved_as(path.stem))

    def action_copy(self) -> None:
        """Show the commands, which may be below the edge, and copy them."""
        commands = self.query_one(Commands)
        commands.focus()
        commands.scroll_visible(top=True, animate=False)
        found = self._current
        if found is None or not found.commands:
            self.notify("There are no commands to copy yet.", severity="warning")
            return
        self.app.copy_to_clipboard("\n".join(found.commands) + "\n")
        self.notify(f"Copied {len(found.commands)} commands.")


def _folder(text: str) -> Path:
    """The folder that `text` names; what begins with ~ and is nobody's home is taken by its letters."""
    try:
        return paths.expanded(text)
    except UsageError:
        return Path(text)
