"""`python -m engine.artifacts DIR [--library NAME]`: check an export; 1 where a check fails."""

import argparse
import sys
from pathlib import Path

from engine import narrate
from engine.artifacts import verify
from engine.errors import WizardError


def main(argv: list[str] | None = None) -> int:
    """Under the runner every check is a record and a failed one no failure: the runner judges."""
    parser = argparse.ArgumentParser(prog="python -m engine.artifacts", description=__doc__)
    parser.add_argument("output", metavar="DIR", type=Path, help="the folder of an export")
    parser.add_argument("--library", metavar="NAME", help="the model library that must be there")
    parser.add_argument(
        "--made-by", metavar="BACKEND", help="the backend that made it (default: its receipt's)"
    )
    arguments = parser.parse_args(argv)
    try:
        checks = verify(arguments.output, arguments.library, arguments.made_by)
    except WizardError as error:
        narrate.failed(error)
        return error.exit_code
    for check in checks:
        narrate.check(check)
    return 0 if narrate.records() or all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
