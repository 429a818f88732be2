"""How long `mlc-wizard --check` takes: as a multiple of what its slowest part cannot do without.

    python benchmarks/toolchain.py [--rounds 5]

Each round runs a child that imports tvm, and the check, one after the other, so that both meet the same
machine; the check imports it once, in a child beside the others. Told are the medians: seconds of each, the
ratio, and the seconds to the first line that the check prints.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

IMPORT = (sys.executable, "-c", "import tvm")
CHECK = (sys.executable, "-P", "-m", "tui", "--check")


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds to the first line on stdout (to the end where there is none), and to the end."""
    began = time.perf_counter()
    first = 0.0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        for _ in child.stdout:
            first = first or time.perf_counter() - began
    whole = time.perf_counter() - began
    return first or whole, whole


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for command in (IMPORT, CHECK):
        timed(command)  # what is on disk only is read once
    rounds = [(timed(IMPORT), timed(CHECK)) for _ in range(arguments.rounds)]
    for (_, imported), (first, whole) in rounds:
        print(f"  import {imported:.2f} s, check {whole:.2f} s ({whole / imported:.2f}), line {first:.2f} s")
    imports, checks = ([whole for _, whole in side] for side in zip(*rounds, strict=True))
    ratio = statistics.median(check / one for one, check in zip(imports, checks, strict=True))
    first = statistics.median(first for _, (first, _) in rounds)
    print(
        f"import tvm {statistics.median(imports):.2f} s, --check {statistics.median(checks):.2f} s: "
        f"{ratio:.2f} imports; its first line after {first:.2f} s"
    )


if __name__ == "__main__":
    main()
