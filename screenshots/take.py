"""Take the pictures of the README: the application, driven by keys through a real export of the demo model.

    python screenshots/take.py

A picture is two files. NAME.svg is what the application drew, with everything frozen that differs between
machines and runs (places, times, sizes of what was compiled); a test compares it with the application.
NAME.png is that SVG as Chromium shows it, for a README on a code host, where an SVG finds no fonts. It
holds the digest of its SVG, so that the test can tell whether the two belong together.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import os
import re
import shutil
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from textual.pilot import Pilot
from textual.widgets import Input

from engine import machine, preset, runner
from engine.events import Event, Output, RunEnded, RunStarted, StageEnded, StageStarted
from engine.plan import BUILTIN_DEMO, ExportPlan
from engine.shell import shell_line
from engine.toolchain.check import Found, Started
from engine.toolchain.finding import NOTHING, Status, running
from engine.toolchain.probe import Probe
from engine.toolchain.registry import BY_ID
from tui import run_log, symbols
from tui.app import WizardApp
from tui.screens import review, run, toolchain
from tui.screens.toolchain import ToolchainScreen
from tui.widgets.check_list import ProbeList
from tui.widgets.log_view import LogView
from tui.widgets.stage_list import StageList

HERE = Path(__file__).parent
NAMES = ("start", "toolchain", "model", "quantize", "context", "target", "review", "run", "failure", "result")
SIZE = (100, 30)
"""Cells: a code host shows 830 pixels or so, where more would be too small to read."""

_PATIENCE = 300
"""Seconds for one step of the way; the compilation of TVM's runtime is one, where that was not done yet."""
_PAUSE_AFTER = "decode plans"
"""The line of the compiler with which the picture of the run is taken."""
_ELAPSED = 4.0
_SECONDS = {"convert_weight": 0.3, "gen_config": 0.2, "compile": 5.0, "verify": 0.4}
_TAKEN = 5.9
_RECEIPT_BYTES = 4800
_MACHINE = machine.Machine(ram_total=16 * 10**9, ram_available=8 * 10**9, disk_free=84 * 10**9)
_OWN = ExportPlan(
    source="HuggingFaceTB/SmolLM2-135M-Instruct",
    quantization="q0f32",
    description="SmolLM2 for every browser",
    output=Path("dist/smollm2"),
)
_NOW = datetime.datetime(2026, 11, 23, 9, 41)
_SITE = "/home/ada/mlc-wizard/.venv/lib/python3.12/site-packages"
_FOUND: dict[str, tuple[Status, str]] = {
    "python": ("ok", "CPython 3.12.4, x86_64, /home/ada/mlc-wizard/.venv/bin/python"),
    "tvm": ("ok", f"{BY_ID['tvm'].wanted}, {_SITE}/tvm"),
    "tvm-ffi": ("ok", f"{BY_ID['tvm-ffi'].wanted}, {_SITE}/tvm_ffi"),
    "tvm-codegen": ("ok", "cuda, llvm, metal, opencl, webgpu; this build lacks vulkan"),
    "zig": ("ok", f"{BY_ID['zig'].wanted}, {_SITE}/ziglang"),
    "wasm-runtime": ("warn", "not compiled yet, in /home/ada/.cache/mlc-wizard/wasm-runtime"),
    "memory": ("ok", "16.0 GB, 8.0 GB of it free"),
    "disk": ("ok", "84.0 GB here, 84.0 GB Hub cache, 84.0 GB own cache"),
    "hub": ("ok", "https://huggingface.co answers"),
    "browser": ("ok", "/usr/bin/chromium"),
}
"""What the picture of the toolchain finds; of the rest, nothing is there."""
_SHOWN_HOME = "/home/ada/models"
_SHOWN_SOURCES = "/home/ada/mlc-wizard"
_DIGEST = b"Source digest"
_PAGE = "<style>body { margin: 0; width: 1240px } svg { display: block }</style>"


def found(probes: Sequence[Probe], _cancel: threading.Event) -> Iterator[Started | Found]:
    """The check of a machine that is the same everywhere."""
    for probe in probes:
        status, text = _FOUND.get(probe.id, ("missing", "not found"))
        build = running("Compile it now.", ("python", "-P", "-m", "engine.embedded.wasm", "build"))
        yield Started(probe.id)
        yield Found(probe.finding(status, text, remedy=build if status == "warn" else NOTHING))


class Stage:
    """A folder, a machine and a clock that look the same everywhere, and a run that waits to be seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.paused, self.go_on = threading.Event(), threading.Event()
        self._run = runner.run
        places = {
            sys.executable: ".venv/bin/python",
            str(HERE.parent): _SHOWN_SOURCES,
            str(folder): _SHOWN_HOME,
        }
        self._places = sorted(places.items(), key=lambda place: -len(place[0]))

    @contextlib.contextmanager
    def set(self) -> Iterator[None]:
        """Everything in its place until the end of the block."""
        own = self.folder.parent / "presets"
        own.mkdir()
        preset.save(_OWN, own / "smollm2.toml")
        with contextlib.ExitStack() as patches:
            patches.enter_context(contextlib.chdir(self.folder))
            cache = str(self.folder.parent / "hub")
            patches.enter_context(patch.dict(os.environ, HF_HUB_CACHE=cache))
            os.environ.pop("NO_COLOR", None)
            for thing, name, value in (
                (preset, "user_folder", lambda: own),
                (machine, "inspect", lambda _output: _MACHINE),
                (symbols, "needs_ascii", lambda: False),
                (runner, "run", self.run),
                (run_log, "shell_line", self.shell_line),
                (review, "shell_line", self.shell_line),
                (toolchain, "check", found),
                (toolchain.ToolchainScreen, "clock", staticmethod(lambda: _NOW)),
                (run.RunScreen, "clock", staticmethod(lambda: self.now)),
                (run.RunScreen, "wall_clock", staticmethod(lambda: _NOW)),
            ):
                patches.enter_context(patch.object(thing, name, value))
            try:
                yield
            finally:
                self.go_on.set()

    def text(self, text: str) -> str:
        """`text` with the places that it shows to readers."""
        for place, shown in self._places:
            text = text.replace(place, shown)
        return re.sub(r" in \d+\.\d s\.$", " in 0.1 s.", text)

    def shell_line(self, argv: Any) -> str:
        """A command as it is shown."""
        return shell_line([self.text(word) for word in argv])

    def run(self, plan: ExportPlan, cancel: threading.Event, *, fresh: bool = False) -> Iterator[Event]:
        """The real run, its events frozen, waiting in the midst of the compilation."""
        for event in map(self._frozen, self._run(plan, cancel, fresh=fresh)):
            lines = event.lines if isinstance(event, Output) else ()
            cut = next((n for n, line in enumerate(lines, 1) if line.startswith(_PAUSE_AFTER)), None)
            if not isinstance(event, Output) or cut is None:
                yield event
                continue
            yield dataclasses.replace(event, lines=lines[:cut])
            self.paused.set()
            self.go_on.wait(_PATIENCE)
            yield dataclasses.replace(event, lines=lines[cut:])

    def _frozen(self, event: Event) -> Event:
        match event:
            case RunStarted():
                return dataclasses.replace(event, output=self.text(event.output), log=self.text(event.log))
            case StageStarted():
                return dataclasses.replace(event, command=tuple(map(self.text, event.command)))
            case Output():
                return dataclasses.replace(event, lines=tuple(map(self.text, event.lines)))
            case StageEnded():
                return dataclasses.replace(event, seconds=_SECONDS[event.stage])
            case RunEnded():
                files = tuple((name, self._size(name, size)) for name, size in event.files)
                checks = tuple(
                    dataclasses.replace(check, found=re.sub(r"(?<=\.wasm, )[\d,]+", _rounded, check.found))
                    for check in event.checks
                )
                output = self.text(event.output)
                return dataclasses.replace(event, seconds=_TAKEN, output=output, files=files, checks=checks)
        return event

    @staticmethod
    def _size(name: str, size: int) -> int:
        """Sizes that differ a little from machine to machine, rounded; the receipt holds places and times."""
        if name.endswith("receipt.json"):
            return _RECEIPT_BYTES
        return round(size, -5) if name.endswith(".wasm") else size


def _rounded(found: re.Match[str]) -> str:
    return f"{round(int(found.group().replace(',', '')), -5):,}"


async def take(folder: Path) -> dict[str, str]:
    """Go through the whole application in `folder`, which is empty; the SVG of each picture by its name."""
    work = folder / "work"
    work.mkdir()
    stage = Stage(work.resolve())
    pictures: dict[str, str] = {}

    async def reach(step: str, *keys: str, ready: Callable[[], bool] = lambda: True, name: str = "") -> None:
        await pilot.press(*keys)
        await until(pilot, lambda: step == getattr(app.screen, "STEP", "start") and ready())
        if step != "run":
            await app.workers.wait_for_complete([w for w in app.workers if not w.is_finished])
        await look(pilot)
        pictures[name or step] = seamless(app.export_screenshot(title="mlc-wizard"))

    def is_running() -> bool:
        if not stage.paused.is_set() or not app.screen.query_one(LogView).settled:
            return False
        stage.now = _ELAPSED
        app.screen.query_one(StageList).refresh_state()
        return bool(app.screen.query_one(LogView).lines[-1].endswith("of temporaries"))

    with stage.set():
        app = WizardApp()
        app.animation_level = "none"
        async with app.run_test(size=SIZE) as pilot:
            await reach("start")
            await pilot.press("t")
            await until(pilot, lambda: isinstance(app.screen, ToolchainScreen) and not app.screen.state.asked)
            rows = app.screen.query_one(ProbeList)
            rows.highlighted = rows.get_option_index("wasm-runtime")
            await reach("start", name="toolchain")
            await pilot.press("escape")
            await pilot.press("n")
            await reach("model", *BUILTIN_DEMO, ready=lambda: app.draft.facts is not None)
            await reach("quantize", "enter")
            await reach("context", "ctrl+n")
            await reach("target", "ctrl+n")
            await reach("review", "ctrl+n", ready=lambda: getattr(app.screen, "complete", False))
            await reach("run", "ctrl+r", ready=is_running)
            damage(work / app.draft.plan().output / "params_shard_0.bin")
            stage.go_on.set()
            await reach("run", ready=lambda: app.screen.state.phase == "failed", name="failure")
            await reach("result", "r")
    return pictures


def damage(file: Path) -> None:
    """Change a byte of what a stage has written, for the checks to find."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


async def until(pilot: Pilot[Any], reached: Callable[[], bool]) -> None:
    """Wait for something that takes its time."""
    end = time.monotonic() + _PATIENCE
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(f"the application stays at {pilot.app.screen!r}")
        await pilot.pause(0.02)


async def look(pilot: Pilot[Any]) -> None:
    """Wait until all is drawn; cursors are there and do not blink."""
    await pilot.pause()
    for field in pilot.app.screen.query(Input):
        field.cursor_blink = False
        field._cursor_visible = True
    await pilot.pause()
    await pilot.pause()


def seamless(svg: str) -> str:
    """`svg` in a font that is on machines, stretched to its cells, not cut there: no gaps in frames."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<clipPath.*?</clipPath>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' clip-path="[^"]*"', "", svg)
    svg = svg.replace("font-family: Fira Code, monospace", "font-family: DejaVu Sans Mono, Menlo, monospace")
    svg = svg.replace("font-size: 20px", "font-size: 21px")
    svg = svg.replace(' textLength="', ' lengthAdjust="spacingAndGlyphs" textLength="')
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def digest(svg: str) -> bytes:
    """What ties a PNG to its SVG."""
    return hashlib.sha256(svg.encode()).hexdigest().encode()


def digest_of(png: bytes) -> bytes:
    """The digest in a PNG; empty where there is none."""
    place = 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        body = png[place + 8 : place + 8 + length]
        if png[place + 4 : place + 8] == b"tEXt" and body.startswith(_DIGEST + b"\0"):
            return body[len(_DIGEST) + 1 :]
        place += 12 + length
    return b""


def photographs(pictures: dict[str, str]) -> dict[str, bytes]:
    """The PNG of each SVG, as Chromium shows it, with its digest."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    taken = {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(device_scale_factor=1.5)
        for name, svg in pictures.items():
            page.set_content(_PAGE + svg)
            taken[name] = _labelled(page.locator("svg").screenshot(omit_background=True), digest(svg))
        chromium.close()
    return taken


def _labelled(png: bytes, label: bytes) -> bytes:
    """`png` with a tEXt chunk after its header, https://www.w3.org/TR/png/#11tEXt."""
    body = b"tEXt" + _DIGEST + b"\0" + label
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    header = 8 + 12 + 13
    return png[:header] + chunk + png[header:]


def main() -> None:
    """Take all pictures, and write those that changed."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = asyncio.run(take(Path(scratch)))
    for name, png in photographs(pictures).items():
        (HERE / f"{name}.svg").write_text(pictures[name], encoding="utf-8", newline="\n")
        path = HERE / f"{name}.png"
        if not path.is_file() or digest_of(path.read_bytes()) != digest(pictures[name]):
            path.write_bytes(png)
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
