"""Checks as they are gathered."""

import contextlib
from collections.abc import Iterator, Sequence

from engine.events import Check


class Report:
    """The checks made so far."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def add(self, name: str, problems: Sequence[str], fine: str) -> bool:
        """A check that passes without `problems`; the first three are told, else `fine`."""
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        found = "; ".join(problems[:3]) + more if problems else fine
        self.checks.append(Check(name=name, passed=not problems, found=found))
        return not problems

    @contextlib.contextmanager
    def guarding(self, name: str) -> Iterator[None]:
        """Turn what malformed contents raise into a failed check `name`."""
        try:
            yield
        except OSError as error:
            self.add(name, [f"{error.filename} cannot be read: {error.strerror or error}"], "")
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            detail = f"has no key {error}" if type(error) is KeyError else str(error)
            self.add(name, [f"malformed: {detail}"], "")
