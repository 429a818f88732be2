"""`python -m engine.toolchain ID ...`: probes, in this process; a record {"finding": {...}} for each.

One that fails by itself is {"failed": {"id": ID}} instead, after a line that says how. By hand the
findings are printed as JSON.
"""

import argparse
import importlib
import json
import math
import os
import sys
from collections.abc import Mapping

from engine import narrate
from engine.toolchain.finding import to_json
from engine.toolchain.probe import Probe, limited


def main(argv: list[str] | None = None) -> int:
    """Run the probes, one after the other, and tell what each found."""
    parser = argparse.ArgumentParser(prog="python -m engine.toolchain", description=__doc__)
    parser.add_argument("probes", nargs="+", metavar="ID", help="as --check --json has them")
    parser.add_argument("--group", default="", help="of the probes: no other is loaded then")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="how long it may take; 0: as long as it wants"
    )
    arguments = parser.parse_args(argv)
    known = _known(arguments.group)
    if unknown := [name for name in arguments.probes if name not in known]:
        parser.error(f"there is no probe {unknown[0]}; there are {', '.join(sorted(known))}")
    with limited(arguments.seconds or math.inf):
        told = [_tell(known[name]) for name in arguments.probes]
    return 0 if all(told) else 1


def _known(group: str) -> Mapping[str, Probe]:
    """The probes of `group`, or all, by id."""
    if not group:
        from engine.toolchain import registry

        return registry.BY_ID
    module = importlib.import_module(f"engine.toolchain.groups.{group}")
    return {probe.id: probe for probe in module.PROBES}


def _tell(probe: Probe) -> bool:
    """Tell what `probe` finds; False where it fails by itself, which says nothing of what it looks at."""
    try:
        finding = probe.look(probe)
    except Exception as error:
        # A fault of ours must not look as one of the part, nor hide what it was.
        if not narrate.records():
            raise
        narrate.say(f"{type(error).__name__}: {error}")
        narrate.record("failed", {"id": probe.id})
        return False
    body = to_json(finding)
    if narrate.records():
        narrate.record("finding", body)
    else:
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
    return True


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries that were only looked at may crash on their way out
