"""What a library for webgpu is tried with: a browser, and Node."""

import os
import sys
from pathlib import Path

from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import ask, version_of, which

OLDEST_NODE = (18,)
_COMMANDS = (
    *("google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "chrome"),
    *("microsoft-edge", "microsoft-edge-stable", "msedge", "brave-browser", "firefox"),
)
_MAC = (*("Google Chrome", "Chromium", "Microsoft Edge", "Brave Browser", "Safari", "Firefox"),)
_WINDOWS = (
    r"Google\Chrome\Application\chrome.exe",
    r"Microsoft\Edge\Application\msedge.exe",
    r"Mozilla Firefox\firefox.exe",
)


def _browser(probe: Probe) -> Finding:
    # Looked for, not started: on Windows and macOS even --version opens a window.
    if found := installed():
        return probe.finding("ok", ", ".join(found))
    return probe.finding(
        "missing",
        "none was found",
        remedy=Remedy(told="Install Chrome, Edge or Chromium, or open the export on another machine."),
    )


def installed() -> list[str]:
    """The browsers of this machine, by path."""
    found = [path for name in _COMMANDS if (path := which(name))]
    if sys.platform == "darwin":
        apps = [Path(f"/Applications/{name}.app") for name in _MAC]
        found += [str(path) for path in apps if path.exists()]
    if sys.platform == "win32":
        for variable in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
            places = [Path(os.environ.get(variable, r"C:\none")) / name for name in _WINDOWS]
            found += [str(path) for path in places if path.is_file()]
    return list(dict.fromkeys(found))


def _node(probe: Probe) -> Finding:
    answer = ask(["node", "--version"])
    remedy = Remedy(told="Install Node 18 or later from https://nodejs.org, or with your system's packages.")
    if not answer.answered:
        return probe.finding(answer.status, answer.told(), remedy=remedy)
    version = answer.version(r"v(\d+\.\d+\.\d+)")
    if not version:
        return probe.finding("broken", f"no version: {answer.told()}", remedy=remedy)
    if version_of(version) < OLDEST_NODE:
        return probe.finding(
            "warn", version, why="Too old for the tools of today's web pages.", remedy=remedy
        )
    return probe.finding("ok", f"{version}, {which('node')}")


PROBES = (
    Probe(
        id="browser",
        group="browser",
        title="Browser",
        wanted="one with WebGPU: Chrome, Edge or Chromium 113, Safari 26, Firefox 141, or later",
        why="A library for webgpu is tried in it; making one needs none.",
        of_use=("webgpu",),
        look=_browser,
    ),
    Probe(
        id="node",
        group="browser",
        title="Node",
        wanted="18 or later",
        why="Builds pages that use WebLLM from npm; making libraries needs none.",
        of_use=("webgpu",),
        look=_node,
    ),
)
