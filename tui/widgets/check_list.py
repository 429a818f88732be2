"""The rows of the toolchain check, and what they mean for each target."""

from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.toolchain.finding import Finding, Status
from engine.toolchain.probe import Probe
from engine.toolchain.registry import BY_ID
from engine.toolchain.verdict import State
from tui import symbols
from tui.check_state import CheckState
from tui.widgets.choice_list import shortened

_MARKS: dict[Status, str] = {
    "ok": symbols.DONE,
    "warn": symbols.WARNING,
    "missing": symbols.FAILED,
    "broken": symbols.FAILED,
}
_WORD = 8
_QUIET = "$foreground-muted"
_VERDICTS: dict[State, tuple[str, str]] = {
    "works": (symbols.DONE, "$text-success"),
    "missing": (symbols.FAILED, _QUIET),
    "unknown": (symbols.WAITING, _QUIET),
}


class ProbeList(OptionList):
    """A row for each probe that is shown; only the row that changes is drawn anew."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Remedy", key_display="enter", tooltip="Run the remedy, after a question"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]

    def __init__(self, state: CheckState) -> None:
        super().__init__(id="probes", classes="box", compact=True, markup=False)
        self._state = state

    @property
    def chosen(self) -> str:
        """The id of the row under the cursor."""
        option = self.highlighted_option
        return (option.id or "") if option is not None else ""

    def on_resize(self) -> None:
        """Columns follow the width, and a lower window still shows the cursor."""
        self.show_all()
        self.call_after_refresh(self.scroll_to_highlight)

    def show_all(self) -> None:
        """Every row, the cursor staying on its own where that is shown."""
        kept, probes = self.chosen, self._state.shown
        names = [probe.id for probe in probes]
        if [option.id for option in self.options] == names:
            for probe in probes:
                self.show(probe.id)
            return
        self.set_options([Option(self._row(probe), id=probe.id) for probe in probes])
        if names:
            self.highlighted = names.index(kept) if kept in names else 0

    def show(self, name: str) -> None:
        """One row."""
        probe = next((probe for probe in self._state.shown if probe.id == name), None)
        if probe is not None and any(option.id == name for option in self.options):
            self.replace_option_prompt(name, self._row(probe))

    def _row(self, probe: Probe) -> Content:
        finding = self._state.findings.get(probe.id)
        mark, word, style = self._told(probe, finding)
        width = self.scrollable_content_region.width
        title = 24 if width >= 60 else max(min(len(probe.title), width - _WORD - 4), 0)
        room = max(width - 2 - _WORD - 1 - title - 2, 0)
        found = finding.found if finding else ""
        return Content.assemble(
            (f"{mark} {word:<{_WORD}} ", style),
            f"{shortened(probe.title, title):<{title}}  ",
            (shortened(found, room), _QUIET),
        )

    def _told(self, probe: Probe, finding: Finding | None) -> tuple[str, str, str]:
        """Mark, word and colour."""
        state = self._state
        if probe.id in state.at_work:
            return symbols.RUNNING, "checking", "$primary"
        if finding is None or probe.id in state.asked:
            return symbols.WAITING, "waiting", _QUIET
        if finding.status == "ok":
            style = "$text-success"
        elif finding.status == "warn":
            style = "$text-warning"
        else:
            # What nobody misses is told, not cried out.
            style = "$text-error" if state.is_missed(finding) else _QUIET
        return _MARKS[finding.status], finding.status, style


class VerdictBox(Static):
    """What can be made here: a line of all targets, or a line for each where there is room."""

    TALL = 30
    """Rows of a terminal that has room."""

    def __init__(self, state: CheckState, **kwargs: Any) -> None:
        super().__init__(id="verdicts", classes="box", markup=False, **kwargs)
        self._state = state
        self.border_title = "Targets"
        self._shown = Content()

    def on_resize(self) -> None:
        """More or less room."""
        self.show()

    def show(self) -> None:
        """Draw what is known now; a layout of the whole screen, hence only where it is something else."""
        if (shown := self._told()) != self._shown:
            self._shown = shown
            self.update(shown)

    def _told(self) -> Content:
        state, width = self._state, self.scrollable_content_region.width
        verdicts = [v for v in state.verdicts if v.target == (state.target or v.target)]
        if not state.target and self.app.size.height < self.TALL:
            return Content("  ").join(Content.assemble(_VERDICTS[v.state], f" {v.target}") for v in verdicts)
        lines = []
        for verdict in verdicts:
            sentence = verdict.sentence(BY_ID)
            if not state.target:
                sentence = shortened(sentence, width - 11)
            head = f" {verdict.target:<8} "
            lines.append(Content.assemble(_VERDICTS[verdict.state], head, (sentence, _QUIET)))
        return Content("\n").join(lines)
