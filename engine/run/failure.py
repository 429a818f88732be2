"""A stage that failed, in plain words."""

import os
import re
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.disk import no_space
from engine.errors import NotAuthorizedError, StageError, ToolchainError, UsageError, WizardError
from engine.events import StageName
from engine.explain import Finding
from engine.explain.match import QUOTED

_NO_SPACE = re.compile(r"No space left on device|not enough space on the disk|Disk quota exceeded")
_LONGEST = 300
_KINDS: dict[object, type[WizardError]] = {2: UsageError, 3: ToolchainError, 4: NotAuthorizedError}


def of_stage(
    stage: StageName,
    code: int,
    told: Mapping[str, Any] | None,
    tail: Sequence[str],
    *,
    output: Path,
    remedy: str,
    cause: Finding | None = None,
) -> WizardError:
    """Why `stage` ended with exit code `code` (128 + n for signal n).

    `told` is its own error record, if it wrote one; else `cause`, a known failure that was found in
    what it printed; else the last lines, `tail`, have to do, and `remedy`, as when the record has none.
    """
    if told and told.get("what"):
        return _KINDS.get(told.get("exit_code"), StageError)(
            str(told["what"]), why=str(told.get("why", "")), remedy=str(told.get("remedy") or remedy)
        )
    if full := next((line for line in tail if _NO_SPACE.search(line)), ""):
        return _no_space(stage, full, output)
    if cause is not None:
        known = cause.known
        line = cause.line if len(cause.line) <= _LONGEST else f"{cause.line[:_LONGEST]}..."
        return known.error(
            f"{stage} failed: {known.title}",
            why=f"{known.cause}\n{QUOTED}{line}",
            remedy=f"{known.remedy}\n{remedy}",
        )
    last = f"Its last line: {tail[-1]}" if tail else "It printed nothing."
    if code <= 128 or os.name != "posix":
        return StageError(f"{stage} failed with exit code {code}.", why=last, remedy=remedy)
    number = code - 128
    name = next((s.name for s in signal.Signals if s == number), "unknown")
    if name == "SIGKILL":
        last = f"Systems end a process like this when memory runs out; close other programs. {last}"
    return StageError(f"{stage} was ended by signal {number} ({name}).", why=last, remedy=remedy)


def _no_space(stage: StageName, line: str, output: Path) -> StageError:
    """A disk is full, as `line` says: that of `output`, unless it names the folder of temporary files."""
    temporary = os.environ.get("TMPDIR") or tempfile.gettempdir()
    if temporary not in line or str(output) in line:
        return no_space(output, f"{stage} could not write its files.")
    return StageError(
        f"No space left on the disk that holds {temporary}, where {stage} keeps temporary files.",
        why=f"{QUOTED}{line[:_LONGEST]}",
        remedy="Free some space there, or let TMPDIR (TEMP on Windows) name a folder on another disk. "
        "Finished stages are kept.",
        fix="resume",
    )
