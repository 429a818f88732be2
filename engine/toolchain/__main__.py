"""`python -m engine.toolchain ID [--seconds S]`: one probe, in this process; a record {"finding": {...}}.

By hand it prints the finding as JSON.
"""

import argparse
import json
import math
import os
import sys

from engine import narrate
from engine.toolchain import registry
from engine.toolchain.finding import to_json
from engine.toolchain.probe import limited


def main(argv: list[str] | None = None) -> int:
    """Run the probe and tell what it found."""
    parser = argparse.ArgumentParser(prog="python -m engine.toolchain", description=__doc__)
    parser.add_argument("probe", choices=sorted(registry.BY_ID), metavar="ID", help="one of %(choices)s")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="how long it may take; 0: as long as it wants"
    )
    arguments = parser.parse_args(argv)
    probe = registry.BY_ID[arguments.probe]
    with limited(arguments.seconds or math.inf):
        try:
            finding = probe.look(probe)
        except Exception as error:
            # A fault of ours must not look as one of the part, nor hide what it was.
            if not narrate.records():
                raise
            narrate.say(f"{type(error).__name__}: {error}")
            return 1
    body = to_json(finding)
    if narrate.records():
        narrate.record("finding", body)
    else:
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries that were only looked at may crash on their way out
