"""Where a session begins: a new export, a preset, or a run that was not finished."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine import preset
from engine.errors import WizardError
from engine.plan import ExportPlan
from engine.preset import PresetEntry
from tui import describe, symbols
from tui.draft import Draft
from tui.messages import UnfinishedFound
from tui.run_state import STAGES
from tui.screens.confirm import ConfirmModal
from tui.widgets.key_line import KeyLine

if TYPE_CHECKING:
    from engine.run.resume import Unfinished
    from tui.app import WizardApp

_NEW = "new"
_NOTHING_SAVED = "Nothing saved yet: ctrl+s at the review keeps a preset here."


class StartList(OptionList):
    """The list of beginnings, with the keys that a list is expected to have."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Open", key_display="enter", tooltip="Open what is highlighted"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]


class StartScreen(Screen[None]):
    """New export, unfinished runs, presets."""

    HELP = """
## Start

mlc-wizard turns a language model of the Hugging Face Hub into a folder that **WebLLM** (in browsers) and
**MLC LLM** (phones, desktops, servers) load: the weights, a configuration, and a *model library*, the
compiled code for one kind of device.

**New export** goes through every choice, each with a sensible one already made.

A **preset** holds all choices of an export. **enter** opens it at the review, where everything can still be
changed; **r** runs it at once. Presets that you save are listed as *yours*; **delete** removes one of them.
A preset that cannot be used is listed with the reason.

**Continue** is offered for a run in this folder that was stopped or cut short. Stages that were finished
are not done again.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New", tooltip="A new export"),
        Binding("r", "run", "Run now", tooltip="Run what is highlighted, as it is"),
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Show names that contain some text"),
        Binding("t", "app.toolchain", "Toolchain", tooltip="What this machine has for each target"),
        Binding("delete", "remove", "Remove", tooltip="Remove this preset of yours"),
        Binding("escape", "unfilter", "Show all", tooltip="Show all names again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._presets: dict[str, tuple[PresetEntry, ExportPlan | None]] = {}
        self._unfinished: dict[str, Unfinished] = {}
        self._filter = ""
        self._removable = False

    @property
    def wizard(self) -> "WizardApp":
        """The application, as what it is."""
        return cast("WizardApp", self.app)

    def compose(self) -> ComposeResult:
        """What it is, the list, and more about what is highlighted."""
        yield Static(
            Content.assemble(
                ("mlc-wizard", "bold $primary"),
                ("   Hugging Face language model in, proven MLC / WebLLM package out", "$foreground-muted"),
            ),
            id="headline",
        )
        yield Input(placeholder="part of a name", id="filter", compact=True)
        with Vertical(id="start"):
            box = StartList(id="beginnings", classes="box", compact=True, markup=False)
            box.border_title = "Start from"
            yield box
            yield Static("", id="detail", classes="box", markup=False)
        yield KeyLine()

    def on_mount(self) -> None:
        """Show presets at once, so that keys typed ahead find them, and look for the rest."""
        self._read_presets()
        self._show()
        self.query_one(StartList).focus()
        self.gather()

    def on_resize(self) -> None:
        """Columns follow the width."""
        self._show()

    def _read_presets(self) -> None:
        """Some small files, read in less time than a frame."""
        self._presets = {}
        for entry in preset.list_presets():
            try:
                plan = None if entry.error else preset.load(str(entry.path))
            except WizardError:
                plan = None  # changed between the two readings; the next visit tells why
            self._presets[f"preset:{entry.path}"] = entry, plan

    @work(thread=True, exclusive=True, exit_on_error=False, group="start")
    def gather(self) -> None:
        """Look for unfinished runs."""
        from engine.run import resume  # it takes longer than all of this screen

        self.post_message(UnfinishedFound(resume.unfinished(Path.cwd())))

    def on_unfinished_found(self, message: UnfinishedFound) -> None:
        """Show them."""
        self._unfinished = {f"run:{run.output}": run for run in message.unfinished}
        self._show()

    def _show(self) -> None:
        """Fill the list, the highlight staying where it is."""
        box = self.query_one(StartList)
        before = box.highlighted_option
        options = self._options()
        box.set_options(options)
        ids = [option.id for option in options]
        kept = before.id if before is not None and before.id in ids else None
        first = next((n for n, option in enumerate(options) if not option.disabled), None)
        box.highlighted = ids.index(kept) if kept is not None else first

    def _options(self) -> list[Option]:
        found: list[Option] = []
        if self._matches("new export"):
            found.append(_row(_NEW, "New export", "choose everything yourself"))
        runs = [(key, run) for key, run in self._unfinished.items() if self._matches(str(run.output))]
        if runs:
            found += [_space(), _heading("unfinished, in this folder")]
            for key, run in runs:
                told = f"{_count(run.finished)} done   {describe.digest(run.plan)}"
                found.append(_row(key, f"Continue {run.plan.output}", told))
        for origin, title in (("user", "yours"), ("shipped", "shipped")):
            rows = [
                self._preset_row(key, entry, plan)
                for key, (entry, plan) in self._presets.items()
                if entry.origin == origin and self._matches(entry.name)
            ]
            if rows:
                found += [_space(), _heading(title), *rows]
            elif origin == "user" and not self._filter:
                found += [_space(), _heading(title), Option(_muted(f"  {_NOTHING_SAVED}"), disabled=True)]
        if not any(not option.disabled for option in found):
            found = [Option(_muted(f"No name contains {self._filter!r}; escape shows all."), disabled=True)]
        return found

    def _preset_row(self, key: str, entry: PresetEntry, plan: ExportPlan | None) -> Option:
        if plan is None:
            told, *_ = (entry.error or "changed while it was read").splitlines()
            told = told.removeprefix(f"{entry.path}: ")
            return _row(key, entry.name, f"{symbols.FAILED} cannot be used: {told}", style="$text-error")
        source, room = describe.source_name(plan), 36
        if self.size.width < 100:
            source, room = source.rpartition("/")[2], 24
        if len(source) > room:
            source = source[: room - 1] + symbols.ELLIPSIS
        return _row(key, entry.name, f"{source:<{room}} {plan.quantization:<8} {describe.makes(plan)}")

    def _matches(self, name: str) -> bool:
        return self._filter.casefold() in name.casefold()

    @property
    def _highlighted(self) -> str:
        option = self.query_one(StartList).highlighted_option
        return (option.id or "") if option is not None else ""

    @property
    def _is_own(self) -> bool:
        """Whether a preset of the user's is highlighted."""
        entry, _ = self._presets.get(self._highlighted, (None, None))
        return entry is not None and entry.origin == "user"

    @on(OptionList.OptionHighlighted)
    def show_detail(self) -> None:
        """More about what is highlighted."""
        detail = self.query_one("#detail", Static)
        title, text, broken = self._detail(self._highlighted)
        detail.border_title = title
        detail.set_class(broken, "broken")
        detail.update(text)
        if self._removable != (removable := self._is_own):
            self._removable = removable
            self.refresh_bindings()

    def _detail(self, key: str) -> tuple[str, str, bool]:
        if key in self._presets:
            entry, plan = self._presets[key]
            if plan is None:
                return f"{symbols.FAILED} {entry.name}", entry.error, True
            place = entry.path if entry.origin == "user" else "comes with mlc-wizard"
            return entry.name, f"{entry.description or 'No description.'}\n{place}", False
        if key in self._unfinished:
            run = self._unfinished[key]
            done = ", ".join(told for stage, told in STAGES.items() if stage in run.finished)
            told = f"Done, and not done again: {done}." if done else "Its first stage was not finished."
            return "Continue", f"{told}\n{run.plan.output}", False
        return (
            "New export",
            "A folder with a model, or its id on the Hugging Face Hub, is all that is needed.\n"
            'The built-in demo model, "builtin:demo", takes a minute and downloads nothing.',
            False,
        )

    @on(OptionList.OptionSelected)
    def open_selected(self) -> None:
        """Open what was chosen: a preset at the review, an unfinished run where it goes on."""
        key = self._highlighted
        if key == _NEW:
            self.action_new()
        elif key in self._unfinished:
            self._begin(self._unfinished[key].plan, "", "run")
        elif key in self._presets:
            entry, plan = self._presets[key]
            if plan is None:
                self.notify(entry.error, title=f"{entry.name} cannot be used", severity="error", markup=False)
            else:
                self._begin(plan, entry.name, "review")

    def _begin(self, plan: ExportPlan, name: str, step: str) -> None:
        draft = Draft.from_plan(plan, name)
        if step == "run":
            draft.done.add("review")
        self.wizard.begin(draft, step)

    def action_new(self) -> None:
        """An empty draft."""
        self.wizard.begin(Draft())

    def action_run(self) -> None:
        """Run what is highlighted, as it is."""
        key = self._highlighted
        if key in self._presets and (plan := self._presets[key][1]) is not None:
            self._begin(plan, self._presets[key][0].name, "run")
        else:
            self.query_one(StartList).action_select()

    def action_filter(self) -> None:
        """Ask for a part of a name."""
        field = self.query_one("#filter", Input)
        field.add_class("-shown")
        field.focus()
        self.refresh_bindings()

    @on(Input.Changed, "#filter")
    def narrow(self, event: Input.Changed) -> None:
        """Show the names that contain it."""
        self._filter = event.value
        self._show()

    @on(Input.Submitted, "#filter")
    def to_list(self) -> None:
        """On to the list."""
        self.query_one(StartList).focus()

    def action_unfilter(self) -> None:
        """Show all again."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.remove_class("-shown")
        self.query_one(StartList).focus()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only presets of one's own can be removed."""
        if action == "unfilter":
            return self.is_mounted and self.query_one("#filter").has_class("-shown")
        if action == "remove":
            return self.is_mounted and self._is_own
        return super().check_action(action, parameters)

    def action_remove(self) -> None:
        """Ask, then remove a preset of the user's."""
        entry, _ = self._presets.get(self._highlighted, (None, None))
        if entry is None or entry.origin != "user":
            return
        path = entry.path

        def answered(yes: bool | None) -> None:
            if yes:
                self._remove(path)

        question = ConfirmModal(
            f"Remove {entry.name}?", f"The file {path} will be deleted.", yes="Remove", no="Keep"
        )
        self.app.push_screen(question, answered)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self.notify(f"{path} cannot be removed: {error.strerror}", severity="error", markup=False)
        self._read_presets()
        self._show()


def _count(stages: Sequence[str]) -> str:
    """How many stages, in words."""
    return "1 stage" if len(stages) == 1 else f"{len(stages)} stages" if stages else "nothing"


def _row(key: str, name: str, told: str, *, style: str = "$foreground-muted") -> Option:
    return Option(Content.assemble((f"  {name:<22} ", "bold"), (told, style)), id=key)


def _heading(title: str) -> Option:
    return Option(Content.styled(title, "$primary"), disabled=True)


def _space() -> Option:
    return Option("", disabled=True)


def _muted(text: str) -> Content:
    return Content.styled(text, "$foreground-muted")
