"""The time until the wizard shows its first screen, beside that of a Textual application which shows nothing.

`python -m benchmarks.startup [--runs N]` prints seconds from the start of the process to the first frame
of each, and their ratio; the exit code is 1 where the ratio is above the aim of 1.5, or where
`mlc-wizard --version` imports textual. Each run is a process of its own, the two kinds take turns, and
the best counts: what else a machine does only adds time. A frame counts when its terminal sequences are
made; where they go, nobody sees them.
Bytecode is that of an installed package: compiled before, in a folder that is removed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

AIM = 1.5
SIZE = (100, 30)
EMPTY = "from textual.app import App\nclass Shown(App): pass\nwanted = None\n"
WIZARD = "from tui.app import WizardApp as Shown\nwanted = 'New export'\n"
WATCH = f"""
import os, sys, time
display = Shown._display
def shows(screen, text):
    strips = screen._compositor.render_strips()
    return any(text in "".join(part.text for part in strip) for strip in strips)
def watched(self, screen, renderable):
    display(self, screen, renderable)
    if renderable is not None and (wanted is None or shows(self.screen, wanted)):
        sys.__stdout__.write(str(time.time_ns() - int(sys.argv[1])) + "\\n")
        sys.__stdout__.flush()
        os._exit(0)
Shown._display = watched
Shown.is_headless = False  # draw as for a terminal; only the driver knows that there is none
Shown().run(headless=True, size={SIZE})
"""
VERSION = """
import sys
from tui.cli import main
main(["--version"])
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"textual", "rich", "numpy", "tvm"})
sys.exit(f"--version imports {', '.join(heavy)}" if heavy else 0)
"""


def first_frame(program: str, bytecode: str) -> float:
    """Seconds from now until `program` has drawn its first frame; its bytecode is kept in a folder."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
    command = [sys.executable, "-c", program + WATCH, str(time.time_ns())]
    return int(subprocess.check_output(command, env=environment)) / 1e9


def main() -> int:
    """Print the two figures and the ratio; whether they are what they should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    version = subprocess.run([sys.executable, "-c", VERSION], check=False).returncode
    with tempfile.TemporaryDirectory() as cache:
        first_frame(WIZARD, cache)  # compiles, and brings files into memory
        pairs = [(first_frame(EMPTY, cache), first_frame(WIZARD, cache)) for _ in range(runs)]
    empty, wizard = (min(times) for times in zip(*pairs, strict=True))
    print(f"first frame: empty {empty:.3f} s, wizard {wizard:.3f} s, ratio {wizard / empty:.2f} (aim {AIM})")
    return version or int(wizard / empty > AIM)


if __name__ == "__main__":
    sys.exit(main())
