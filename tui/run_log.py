"""The events of a run as lines of its log."""

from engine.events import Advised, Event, Output, RunStarted, StageEnded, StageStarted
from engine.headless import duration
from engine.shell import shell_line
from tui.run_state import STAGES
from tui.symbols import DONE, DOT, FAILED, WARNING
from tui.widgets.log_lines import Kind


def told(event: Event) -> tuple[tuple[str, ...], Kind]:
    """The lines of `event`, of which there may be none, and how they look."""
    match event:
        case RunStarted():
            return (event.backend,), "output"
        case Advised(severity="warning"):
            return (f"{WARNING} {event.message}",), "warning"
        case Advised():
            return (f"{DOT} {event.message}",), "output"
        case StageStarted():
            return (f"$ {shell_line(event.command)}",), "command"
        case Output():
            return event.lines, "output"
        case StageEnded(outcome="done"):
            return (f"{DONE} {STAGES[event.stage]}, {duration(event.seconds)}",), "good"
        case StageEnded(outcome="skipped"):
            return (f"{DONE} {STAGES[event.stage]}: {event.detail}",), "good"
        case StageEnded(outcome="cancelled"):
            return (f"{WARNING} Stopped in {STAGES[event.stage]}.",), "warning"
        case StageEnded():
            first, *rest = (
                line for part in (event.what, event.why, event.remedy) for line in part.splitlines()
            )
            return (f"{FAILED} {first}", *(f"  {line}" for line in rest)), "error"
    return (), "output"
