"""OUT/mlc-wizard.log: every command and every line of every run, with the time."""

import contextlib
import datetime
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.disk import disk_error
from engine.layout import LOG_NAME


class Log:
    """Appends to the log of `output`, so that a run that was taken up again has its first part there.

    Raises a WizardError where the file cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / LOG_NAME
        try:
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
        except OSError as error:
            raise disk_error(error, self.path) from None

    def write(self, lines: Iterable[str], source: str = "run") -> None:
        """Write `lines`, each with the local time and where it comes from."""
        now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        try:
            self._file.writelines(f"{now} {source}: {line}\n" for line in lines)
            self._file.flush()
        except OSError as error:
            raise disk_error(error, self.path) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk was told when it was written to
            self._file.close()
