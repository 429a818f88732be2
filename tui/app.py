"""The application: one draft, the way through the steps, and what is at hand everywhere."""

import importlib
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.screen import Screen

from engine import paths
from engine.errors import HubUnreachable, WizardError
from tui import steps, symbols
from tui.draft import Draft
from tui.messages import FactsFailed, FactsRead
from tui.theme import WIZARD, legible

if TYPE_CHECKING:
    from engine.model.facts import ModelFacts
    from tui.check_state import CheckState

_SCREENS = {
    "start": "tui.screens.start:StartScreen",
    "model": "tui.screens.model:ModelScreen",
    "quantize": "tui.screens.quantize:QuantizeScreen",
    "context": "tui.screens.context:ContextScreen",
    "target": "tui.screens.target:TargetScreen",
    "review": "tui.screens.review:ReviewScreen",
    "run": "tui.screens.run:RunScreen",
    "result": "tui.screens.result:ResultScreen",
}
"""Imported when first visited, so that the first frame does not wait for the last step.

For its sake, what belongs to models and plans is imported below where it is used.
"""


class WizardApp(App[int], inherit_bindings=False):
    """mlc-wizard on a screen; returns an exit code."""

    CSS_PATH = "app.tcss"
    TITLE = "mlc-wizard"
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012  as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-low"), (18, "-short"), (30, "-tall")]  # noqa: RUF012  as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        # Two, so that where a question mark is text the other key is the one that is shown.
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("f1", "help", "Help", key_display="F1"),
        Binding(
            "t,f2", "toolchain", "Toolchain", show=False, tooltip="What this machine has for each target"
        ),
        Binding("ctrl+p", "command_palette", "Commands", show=False),
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("ctrl+c", "quit", "Quit", show=False),
    ]

    def __init__(self, draft: Draft | None = None, first: str = "start", *, toolchain: bool = False) -> None:
        super().__init__()
        self.register_theme(WIZARD)
        # Before the stylesheet is read, which is then read only once.
        self.set_reactive(App.theme, WIZARD.name)
        self.stylesheet.set_variables(self.get_css_variables())
        self._first = first
        self._toolchain = toolchain
        self._check: CheckState | None = None
        self.draft = draft or Draft()
        self._drop = threading.Event()
        self._ascii = symbols.AsciiFilter(enabled=symbols.needs_ascii())

    def get_css_variables(self) -> dict[str, str]:
        """Those of the theme, its muted text legible."""
        return legible(super().get_css_variables())

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's own, and ASCII where the terminal has no more."""
        return [*super().get_line_filters(), *([self._ascii] if self._ascii.enabled else [])]

    def on_mount(self) -> None:
        """Begin."""
        self._adopt(self.draft)
        self.push_screen(self._make(self._first))
        if self.draft.is_source_given:
            self.read_facts()
        if self._toolchain:
            self.action_toolchain()

    def begin(self, draft: Draft, step: str = "model") -> None:
        """Start anew with `draft`, at `step`."""
        self._adopt(draft)
        self.go(step)
        if draft.is_source_given:
            self.read_facts()

    def go(self, name: str) -> None:
        """Show the step `name`, or "start"."""
        if self.draft.asking:
            self.stop_reading()  # what was shown when somebody went on is what is exported
        self.clear_notifications()  # they are about what was on the screen
        self.switch_screen(self._make(name))

    def _make(self, name: str) -> Screen[None]:
        module, _, attribute = _SCREENS[name].partition(":")
        screen: Screen[None] = getattr(importlib.import_module(module), attribute)()
        # Textual sets these at the first resize, after a first frame laid out for another size.
        for length, points in (
            (self.size.width, self.HORIZONTAL_BREAKPOINTS),
            (self.size.height, self.VERTICAL_BREAKPOINTS),
        ):
            screen.add_class(max(point for point in points if point[0] <= length)[1])
        return screen

    def _adopt(self, draft: Draft) -> None:
        self.draft.changed = lambda: None
        self.draft = draft
        draft.changed = self.show_draft

    def show_draft(self) -> None:
        """The draft changed: the step on the screen shows it."""
        from tui.screens.step import StepScreen

        for screen in self.screen_stack:
            if isinstance(screen, StepScreen):
                screen.draft_changed()

    def read_facts(self) -> None:
        """Read the facts of the draft's model, off this thread; what was being read before is dropped."""
        self.stop_reading()
        asked = self.draft.asked
        self.draft.reading = True
        self._read_facts(asked.source, asked.model_type, asked.revision, self._drop)
        self.show_draft()

    def stop_reading(self) -> None:
        """Drop what is being read; a child that asks the Hub ends."""
        self._drop.set()
        self._drop = threading.Event()
        self.draft.reading = self.draft.asking = False

    def on_unmount(self) -> None:
        """Leave no child behind."""
        self._drop.set()

    @work(thread=True, exclusive=True, exit_on_error=False, group="facts")
    def _read_facts(self, source: str, model_type: str, revision: str, drop: threading.Event) -> None:
        from engine.model import facts as model_facts
        from engine.model import remote
        from engine.model import source as model_source

        def tell(facts: "ModelFacts", *, more: bool = False, usable: bool = True) -> None:
            if not drop.is_set():
                self.post_message(FactsRead(source, model_type, revision, facts, more, usable))

        known: ModelFacts | None = None
        try:
            if (folder := model_source.local_folder(source)) is not None:
                tell(model_facts.read(folder, model_type))
                return
            if (known := remote.cached(source, revision, model_type)) is not None:
                tell(known, more=known.commit != revision)
                if known.commit == revision:
                    return
            found = known
            for facts in remote.look(source, revision, model_type, drop):
                found = facts
                if known is None:
                    tell(facts, more=True, usable=False)
            if found is not None:
                tell(found)
        except WizardError as error:
            if drop.is_set():
                return
            if known is not None and isinstance(error, HubUnreachable):
                tell(known)
            else:
                self.post_message(FactsFailed(source, model_type, revision, error))
        except OSError as error:
            if not drop.is_set():
                self.post_message(FactsFailed(source, model_type, revision, paths.told(error)))

    def on_facts_read(self, message: FactsRead) -> None:
        """Keep the facts, unless the model changed meanwhile."""
        if self._is_current(message):
            self.draft.facts, self.draft.facts_error = message.facts, None
            self.draft.reading = message.more and not message.usable
            self.draft.asking = message.more and message.usable
            self.show_draft()

    def on_facts_failed(self, message: FactsFailed) -> None:
        """Keep the reason, unless the model changed meanwhile."""
        if self._is_current(message):
            self.draft.facts, self.draft.facts_error = None, message.error
            self.draft.reading = self.draft.asking = False
            self.show_draft()

    def _is_current(self, message: FactsRead | FactsFailed) -> bool:
        asked = self.draft.asked
        return (asked.source, asked.model_type, asked.revision) == (
            message.source,
            message.model_type,
            message.revision,
        )

    def action_help(self) -> None:
        """Open the help of what is on the screen."""
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def action_toolchain(self) -> None:
        """Open the toolchain over what is on the screen; what it finds is kept for the next time."""
        from tui.check_state import CheckState
        from tui.screens.remedy import RemedyScreen
        from tui.screens.toolchain import ToolchainScreen

        if not isinstance(self.screen, (ToolchainScreen, RemedyScreen)):
            self._check = self._check or CheckState()
            self.push_screen(ToolchainScreen(self._check))

    async def action_quit(self) -> None:
        """Leave, once the step on the screen agrees."""
        self._leave(lambda: self.exit(0))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the command palette offers."""
        from tui.screens.step import StepScreen

        if isinstance(screen, StepScreen):
            for step in steps.STEPS:
                if step.name != screen.STEP and screen.can_jump(step.name):
                    yield SystemCommand(
                        f"Go to {step.title}", "Nothing is lost", partial(screen.action_jump, step.name)
                    )
            yield SystemCommand("New export", "Begin again with nothing chosen", self.action_new)
            yield SystemCommand("Start", "Presets and unfinished runs", self.action_start)
        yield SystemCommand("Toolchain", "What this machine has for each target", self.action_toolchain)
        yield SystemCommand("Help", "What this screen is about, and its keys", self.action_help)
        yield SystemCommand("Theme", "Other colours", self.action_change_theme)
        yield SystemCommand("Quit", "Leave mlc-wizard", self.action_quit)

    def action_new(self) -> None:
        """A new export, once the step on the screen agrees."""
        self._leave(lambda: self.begin(Draft()))

    def action_start(self) -> None:
        """Back to the start, once the step on the screen agrees."""
        self._leave(lambda: self.go("start"))

    def _leave(self, go: Callable[[], None]) -> None:
        from tui.screens.remedy import RemedyScreen
        from tui.screens.step import StepScreen
        from tui.screens.toolchain import ToolchainScreen

        # A question, help or the toolchain in front of the step that is left.
        while (screen := self.screen).is_modal or isinstance(screen, (ToolchainScreen, RemedyScreen)):
            if isinstance(screen, RemedyScreen) and screen.running:
                screen.leaving(partial(self._leave, go))
                return
            self.pop_screen()
        if isinstance(screen, StepScreen):
            screen.leaving(go)
        else:
            go()
