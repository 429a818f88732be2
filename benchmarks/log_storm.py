"""How long the screen of a run does not answer at worst while a stage prints a burst of lines.

`python -m benchmarks.log_storm [--lines N] [--runs N]`. A real child of the real runner writes the lines
as fast as it can; the screen is drawn into a terminal that nobody sees. A stall is how much later than
asked for the event loop wakes a task that sleeps 5 ms. The aim is 100 ms for 200,000 lines. Each run is
a process of its own, and each figure that of the worst run. On a busy machine a stall is mostly waiting
for a processor: hence the most work that this process did in one nap, and how late a process beside it
woke that only sleeps.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine import runner
from engine.backends.base import Folders, StageCommand
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, ExportPlan
from tui.app import WizardApp
from tui.draft import Draft
from tui.screens.run import RunScreen
from tui.widgets.log_view import LogView

AIM_MS = 100.0
NAP = 0.005
LAYER = re.compile(r" layer \d+$")
STORM = """
import sys
count, folder = int(sys.argv[1]), sys.argv[2]
line = "[2026-11-22 05:00:27] INFO group_quantization.py:232: Compiling quantize function for key: layer {}"
for number in range(count):
    sys.stdout.write(line.format(number) + "\\n")
open(folder + "/params_shard_0.bin", "w").close()
"""


class Storm:
    """A backend whose one stage prints `count` lines."""

    name = "storm"

    def __init__(self, count: int) -> None:
        self.count = count

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Everything is possible."""

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:  # noqa: ARG002
        """One stage."""
        folder = str(folders.building("convert_weight"))
        argv = (sys.executable, "-P", "-c", STORM, str(self.count), folder)
        return (StageCommand(stage="convert_weight", argv=argv),)


async def worst_nap(stop: asyncio.Event) -> tuple[float, float]:
    """Milliseconds by which the loop was late at worst until `stop`, and of work in one nap at most."""
    late = work = 0.0
    while not stop.is_set():
        began, worked = time.perf_counter(), time.process_time()
        await asyncio.sleep(NAP)
        late = max(late, time.perf_counter() - began - NAP)
        work = max(work, time.process_time() - worked)
    return late * 1000, work * 1000


async def idle() -> None:
    """Print the worst stall, in milliseconds, of a process that only sleeps, once its input is closed."""
    stop = asyncio.Event()
    napping = asyncio.create_task(worst_nap(stop))
    await asyncio.to_thread(sys.stdin.read)
    stop.set()
    print((await napping)[0])


async def storm(count: int) -> dict[str, float]:
    """One run: seconds until the last line was on screen, worst stall and work in one, in milliseconds."""
    real = runner.run

    def run(plan: ExportPlan, cancel: object, *, fresh: bool = False) -> object:
        return real(plan, cancel, fresh=fresh, backend=Storm(count))

    runner.run = run
    with tempfile.TemporaryDirectory() as scratch:
        plan = ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1", output=Path(scratch) / "out")
        app = WizardApp(Draft.from_plan(plan))
        async with app.run_test(size=(110, 32)) as pilot:
            app.go("run")
            await pilot.pause()
            screen = app.screen
            assert isinstance(screen, RunScreen)
            view = screen.query_one(LogView)
            stop = asyncio.Event()
            napping = asyncio.create_task(worst_nap(stop))
            began = time.perf_counter()
            while screen.state.active or not view.settled:
                await asyncio.sleep(0.02)
            seconds = time.perf_counter() - began
            stop.set()
            late, work = await napping
            layers = [line.rpartition(" ")[2] for line in view.lines if LAYER.search(line)]
            if layers != [str(number) for number in range(count)]:
                raise SystemExit(f"lines were lost or changed places: {len(layers)} of {count}")
    return {"seconds": seconds, "late": late, "work": work}


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--idle", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.idle:
        asyncio.run(idle())
        return
    if given.one:
        print(json.dumps(asyncio.run(storm(given.lines))))
        return
    this = [sys.executable, "-m", "benchmarks.log_storm"]
    sleeper = subprocess.Popen([*this, "--idle"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    command = [*this, "--one", "--lines", str(given.lines)]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(given.runs)]
    slept, _ = sleeper.communicate()
    seconds, late, work = (max(run[key] for run in runs) for key in ("seconds", "late", "work"))
    print(
        f"{given.lines:,} lines: {given.lines / seconds:,.0f} lines/s, "
        f"worst stall {late:.0f} ms (aim {AIM_MS:.0f}), at most {work:.0f} ms of work in one, "
        f"an idle process {float(slept):.0f} ms"
    )


if __name__ == "__main__":
    main()
