"""What this machine has for each target; over whatever was on the screen, which stays as it was."""

import datetime
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import OptionList

from engine.catalog import TARGETS
from engine.toolchain import report
from engine.toolchain.check import Found, check
from engine.toolchain.finding import Finding
from engine.toolchain.probe import Probe
from engine.toolchain.registry import BY_ID, PROBES
from tui.check_state import CheckState
from tui.describe import Row
from tui.messages import CheckEnded, CheckSaid
from tui.screens.remedy import RemedyScreen
from tui.symbols import DOT
from tui.widgets.check_list import ProbeList, VerdictBox
from tui.widgets.key_line import KeyLine
from tui.widgets.rows import Rows


class ToolchainScreen(Screen[None]):
    """Runs every probe on entering, and shows what each found as it comes. `state` outlives the visit."""

    HELP = """
## Toolchain

What this machine has, part by part, and on top what that means for each target: **a target works where one
backend has all that it needs**; a missing part counts only against the targets that need it. What is in grey,
nobody misses here. The backend **embedded** is the compiler inside mlc-wizard, **mlc_llm** MLC's own,
**docker** either of them in a container.

- **enter** on a row runs its remedy, after a question and with the command shown, where that changes nothing
  but packages of an environment or a cache of mlc-wizard's own; **c** copies the commands of any remedy
- **f** shows what one target needs, the next one each time; **F** goes back, **a** shows all
- **space** shows the rest of what is told about the row
- **r** looks at the row again, **R** at everything
- **y** copies a report for a bug tracker: no tokens, and your home folder as ~

`mlc-wizard --check` prints the same without a screen.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "copy", "Copy command", tooltip="Copy the commands of the remedy"),
        Binding("f", "target(1)", "Target", tooltip="What one target needs; the next each time"),
        Binding("F", "target(-1)", "Target before", show=False),
        Binding("a", "all", "All", show=False, tooltip="What any target needs"),
        Binding("r", "again", "Check again", tooltip="Look at this row again"),
        Binding("R", "all_again", "Check all", show=False, tooltip="Look at everything again"),
        Binding("y", "report", "Report", tooltip="Copy a report for a bug tracker"),
        Binding("space", "more", "More", show=False, tooltip="The rest about this row"),
        Binding("escape", "close", "Back", tooltip="Back to where you were"),
    ]
    clock: Callable[[], datetime.datetime] = staticmethod(datetime.datetime.now)

    def __init__(self, state: CheckState | None = None) -> None:
        super().__init__()
        self.state = state or CheckState()
        self._cancel = threading.Event()

    def compose(self) -> ComposeResult:
        """Verdicts, rows, and all about the row under the cursor."""
        with Vertical(id="toolchain"):
            yield VerdictBox(self.state)
            yield ProbeList(self.state)
            with VerticalScroll(id="about", classes="box", can_focus=False):
                yield Rows("", id="finding")
        yield KeyLine()

    def on_mount(self) -> None:
        """Look at everything; what is known from before is shown meanwhile."""
        self.query_one(ProbeList).focus()
        self._show()
        self.look(PROBES)

    def on_unmount(self) -> None:
        """Nobody is left to see it."""
        self._cancel.set()
        self.state.asked.clear()
        self.state.at_work.clear()

    # --- the check -------------------------------------------------------------------------------

    def look(self, probes: Sequence[Probe]) -> None:
        """Let `probes` look again, but those that are at it."""
        if fresh := self.state.ask(probes):
            self._look(fresh, self._cancel)
        self._show()

    @work(thread=True, exit_on_error=False, group="toolchain")
    def _look(self, probes: Sequence[Probe], cancel: threading.Event) -> None:
        try:
            for event in check(probes, cancel):
                self.post_message(CheckSaid(event))
        finally:
            self.post_message(CheckEnded(tuple(probe.id for probe in probes)))

    @on(CheckSaid)
    def _said(self, message: CheckSaid) -> None:
        name = self.state.feed(message.event)
        rows = self.query_one(ProbeList)
        rows.show(name)
        if name == rows.chosen and isinstance(message.event, Found):
            self._show_about()
        self._tell()

    @on(CheckEnded)
    def _ended(self, message: CheckEnded) -> None:
        for name in message.ids:
            self.state.forget(name)
        self._show()

    # --- drawing ---------------------------------------------------------------------------------

    def _show(self) -> None:
        self.query_one(ProbeList).show_all()
        self._tell()
        self._show_about()

    def _tell(self) -> None:
        self.query_one(VerdictBox).show()
        rows, shown = self.query_one(ProbeList), self.state.shown
        rows.border_title = f"What {self.state.target} needs" if self.state.target else "Toolchain"
        waiting = sum(probe.id in self.state.asked for probe in shown)
        done = len(shown) - waiting
        at = f"checked at {self.clock():%H:%M}"
        rows.border_subtitle = f"{done} of {len(shown)} checked" if waiting else at

    @property
    def finding(self) -> Finding | None:
        """What is known of the row under the cursor."""
        return self.state.findings.get(self.query_one(ProbeList).chosen)

    @on(OptionList.OptionHighlighted)
    def _show_about(self) -> None:
        """All about the row under the cursor."""
        about, probe = self.query_one("#about"), BY_ID.get(self.query_one(ProbeList).chosen)
        about.display = probe is not None
        if probe is None:
            return
        about.border_title = probe.title
        finding = self.finding
        self.query_one("#finding", Rows).show(_waiting(probe) if finding is None else _about(finding))
        about.scroll_home(animate=False)
        self.refresh_bindings()
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        """Once the box has its height: how the rest of the text is reached."""
        about, finding = self.query_one("#about"), self.finding
        parts = ["space more"] if about.max_scroll_y > 0 else []
        if finding is not None and finding.remedy.safe:
            parts.append("enter runs the remedy")
        about.border_subtitle = f" {DOT} ".join(parts)

    def on_resize(self) -> None:
        """Another size, another rest."""
        self.call_after_refresh(self._fit)

    # --- keys ------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what makes sense now."""
        if action == "copy":
            return self.finding is not None and bool(self.finding.remedy.told)
        return super().check_action(action, parameters)

    def action_target(self, by: int) -> None:
        """Show what another target needs; after the last, everything."""
        names = ["", *TARGETS]
        self.state.target = names[(names.index(self.state.target) + by) % len(names)]
        self._show()

    def action_all(self) -> None:
        """Show everything."""
        self.state.target = ""
        self._show()

    def action_again(self) -> None:
        """Look at this row again."""
        if (probe := BY_ID.get(self.query_one(ProbeList).chosen)) is not None:
            self.look([probe])

    def action_all_again(self) -> None:
        """Look at everything again."""
        self.look(PROBES)

    def action_copy(self) -> None:
        """Copy the commands of the remedy, or its words where there are none."""
        if self.finding is not None:
            remedy = self.finding.remedy
            text = "\n".join(remedy.commands) or remedy.told
            self.app.copy_to_clipboard(text)
            self.notify(f"Copied: {text}", markup=False)

    def action_more(self) -> None:
        """The rest of what is told about the row, and after its end the beginning."""
        about = self.query_one("#about")
        if about.scroll_y >= about.max_scroll_y:
            about.scroll_home(animate=False)
        else:
            about.scroll_page_down(animate=False)

    def action_report(self) -> None:
        """Copy all of it."""
        known = [self.state.findings[probe.id] for probe in PROBES if probe.id in self.state.findings]
        self.app.copy_to_clipboard(report.text(known, self.state.verdicts, BY_ID))
        missing = len(PROBES) - len(known)
        more = f"; {missing} are not known yet" if missing else ""
        self.notify(f"Copied a report of {len(known)} parts{more}.", markup=False)

    @on(OptionList.OptionSelected)
    def _chosen(self) -> None:
        """Run the remedy, or say why that is left to the user."""
        finding = self.finding
        if finding is None:
            return
        if finding.remedy.safe:
            self.app.push_screen(RemedyScreen(finding), partial(self._remedied, finding))
        elif finding.remedy.commands:
            self.notify("This one is yours to run: c copies the command.", markup=False)
        elif not finding.remedy.told:
            self.notify(f"{finding.title}: nothing to do.", markup=False)

    def _remedied(self, finding: Finding, ran: bool | None) -> None:
        """What it changed is looked at again."""
        if ran:
            self.look(self.state.to_recheck(finding))

    def action_close(self) -> None:
        """Back to where somebody came from."""
        if self.is_current:
            self.dismiss()


def _waiting(probe: Probe) -> list[Row]:
    return _known([("wanted", probe.wanted), ("why", probe.why)])


def _about(finding: Finding) -> list[Row]:
    remedy = finding.remedy
    rows = [("found", finding.found), ("wanted", finding.wanted), ("why", finding.why)]
    rows += [("needed for", report.needed_by(finding)), ("remedy", remedy.told)]
    return [*_known(rows), *(("", f"$ {line}") for line in remedy.commands)]


def _known(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row[1]]
