"""What the step Result lists: files, checks, and commands to copy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import WizardError
from engine.events import Check, RunEnded
from engine.headless import grouped
from engine.shell import shell_line
from tui.describe import broken, remedy_of
from tui.symbols import ARROW, DONE, ELLIPSIS, FAILED
from tui.widgets.rows import Mark, Marks


@dataclass
class Verification:
    """The checks of an export as they come in; `at` is when they began, empty for those of the run itself."""

    at: str = ""
    running: bool = False
    checks: list[Check] = field(default_factory=list)
    error: WizardError | None = None

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if not check.passed]

    @property
    def outcome(self) -> Literal["running", "passed", "failed"]:
        """What is known."""
        if self.running:
            return "running"
        return "failed" if self.error is not None or self.failed else "passed"

    def title(self) -> str:
        """In few words."""
        passed = len(self.checks) - len(self.failed)
        again = f"verified again at {self.at}" if self.at else ""
        if self.running:
            return f"Verifying again{ELLIPSIS} {passed} passed so far"
        if self.error is not None:
            return f"{FAILED} The checks came to no end, {again}"
        told = f"{passed} of {len(self.checks)} checks passed" + (f", {again}" if again else "")
        return f"{FAILED} {told}" if self.failed else told

    def marks(self) -> list[Mark]:
        """What is wrong and what to do about it, then every check."""
        found: list[Mark] = []
        if self.error is not None:
            found.append(
                Mark(FAILED, "\n".join(filter(None, (self.error.what, self.error.why))), "$text-error")
            )
            found.append(Mark(ARROW, f"{remedy_of(self.error)}".strip(), "$text-accent"))
        elif self.failed and not self.running:
            remedy = "Run again, key r: into the same folder, redoing the stages of what is damaged."
            found.append(Mark(ARROW, remedy, "$text-accent"))
        found += [Mark(FAILED, c.found, "$error", f"{c.name}: ") for c in self.failed]
        return found + [Mark(DONE, c.found, "$success", f"{c.name}: ") for c in self.checks if c.passed]


class CheckList(Marks):
    """The checks of a `Verification`."""

    def tell(self, verification: Verification) -> None:
        """Draw it."""
        self.border_title = verification.title()
        self.border_subtitle = "" if verification.running else "v  verify again"
        self.set_class(verification.outcome == "failed", "-failed")
        self.show(verification.marks())


class FileList(Static):
    """Names on the left, sizes on the right; all shards of the weights are one row."""

    def __init__(self, ended: RunEnded) -> None:
        super().__init__(classes="box", id="files", markup=False)
        self._files = list(grouped(ended.files, ELLIPSIS))
        self.border_title = f"{len(ended.files)} files"
        self.border_subtitle = "o  open folder"

    def render(self) -> Content:
        """One row a file."""
        width = self.content_size.width
        return Content("\n").join(self._row(name, size, width) for name, size in self._files)

    @staticmethod
    def _row(name: str, size: str, width: int) -> Content:
        room = max(width - len(size) - 2, 8)
        shown = name if len(name) <= room else name[: room - 1] + ELLIPSIS
        return Content.assemble(f"{shown:<{room}}  ", (size, "$foreground-muted"))


class CommandList(OptionList, inherit_bindings=False):
    """Commands to copy; the keys for pages are left to the whole."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_down", "Down", show=False),
        Binding("up,k", "cursor_up", "Up", show=False),
        Binding("enter", "select", "Copy", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(id="commands", compact=True, markup=False)
        self._commands: tuple[tuple[str, str], ...] = ()

    def show(self, commands: Sequence[tuple[str, Sequence[str]]]) -> None:
        """What each is for, and its words."""
        self._commands = tuple((told, shell_line(argv)) for told, argv in commands)
        self._draw()

    def on_resize(self) -> None:
        """What is long breaks elsewhere."""
        self._draw()

    def _draw(self) -> None:
        # Without a row it has no height, and might never be told a width.
        width = self.scrollable_content_region.width or max(self.app.size.width - 8, 20)
        before = self.highlighted
        self.set_options([_option(told, line, width) for told, line in self._commands])
        self.highlighted = before or 0


def _option(told: str, line: str, width: int) -> Option:
    """A command, beside what it is for where there is room, else below it."""
    if len(told) + 2 + len(line) <= width:
        return Option(Content.assemble((f"{told}: ", "$foreground-muted"), line), id=line)
    below = (Content(f"  {part}") for part in broken(line, max(width - 2, 8)))
    return Option(Content("\n").join([Content.styled(f"{told}:", "$foreground-muted"), *below]), id=line)
