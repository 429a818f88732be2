"""What tests of the toolchain's screens share: checks that tests speak for, and a machine to show."""

import datetime
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from tui_support import until

from engine.catalog import TARGETS
from engine.toolchain import verdict
from engine.toolchain.check import Found, Started
from engine.toolchain.finding import Finding, Remedy, running
from engine.toolchain.groups.emscripten import VERSION as EMSCRIPTEN
from engine.toolchain.probe import Probe
from engine.toolchain.registry import BY_ID, PROBES
from tui.app import WizardApp
from tui.messages import CheckSaid
from tui.screens.remedy import RemedyScreen
from tui.screens.toolchain import ToolchainScreen
from tui.widgets.check_list import ProbeList

Asked = list[list[str]]
NOON = datetime.datetime(2026, 11, 23, 12, 0)


@pytest.fixture
def asked(wizard_home: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Checks are noted here instead of begun; the test says what is found."""
    checks: Asked = []

    def note(_self: ToolchainScreen, probes: Sequence[Probe], _cancel: threading.Event) -> None:
        checks.append([probe.id for probe in probes])

    monkeypatch.setattr(ToolchainScreen, "_look", note)
    # What the backends compile for is no matter of the screen.
    some = {"embedded": ("webgpu", "cpu"), "mlc_llm": tuple(TARGETS), "docker": ("webgpu", "cpu", "cuda")}
    monkeypatch.setattr(verdict, "BACKENDS", some)
    monkeypatch.setattr(ToolchainScreen, "clock", staticmethod(lambda: NOON))
    monkeypatch.setattr(RemedyScreen, "clock", staticmethod(lambda: NOON))
    return checks


def finding(name: str, status: Any = "ok", found: str = "1.0, as it should be", **changes: Any) -> Finding:
    return BY_ID[name].finding(status, found, **changes)


def a_machine() -> list[Finding]:
    """Some machine: what the embedded backend needs, and little else."""
    told = {
        "python": "CPython 3.12.4, x86_64, /home/ada/.venv/bin/python",
        "tvm": f"{BY_ID['tvm'].wanted}, /home/ada/.venv/lib/python3.12/site-packages/tvm",
        "memory": "15.5 GB, 9.1 GB of it free",
        "browser": "/usr/bin/chromium",
    }
    findings = {p.id: finding(p.id, found=told.get(p.id, "as wanted")) for p in PROBES}
    for name in (
        "git-lfs",
        "emcc",
        "android-ndk",
        "node",
        "xcode",
        "metal",
        "mlc_llm",
        "docker-image",
        "docker-mlc_llm",
    ):
        findings[name] = finding(name, "missing", "not found", remedy=Remedy(told="Install it."))
    findings["wasm-runtime"] = finding(
        "wasm-runtime",
        "warn",
        "not compiled yet, in /home/ada/.cache/mlc-wizard/wasm-runtime",
        remedy=running("Compile it now.", ("python", "-P", "-m", "engine.embedded.wasm", "build")),
    )
    findings["emcc"] = finding(
        "emcc",
        "broken",
        "emcc does not answer within 14 s",
        remedy=Remedy(
            told=f"Install Emscripten {EMSCRIPTEN}.",
            commands=(f"./emsdk/emsdk install {EMSCRIPTEN}", ". ./emsdk/emsdk_env.sh"),
        ),
    )
    return list(findings.values())


async def feed(pilot: Pilot[Any], *findings: Finding) -> ToolchainScreen:
    screen = pilot.app.screen
    assert isinstance(screen, ToolchainScreen)
    for one in findings:
        screen.post_message(CheckSaid(Started(one.id)))
        screen.post_message(CheckSaid(Found(one)))
    await pilot.pause()
    return screen


async def highlight(pilot: Pilot[Any], name: str) -> None:
    rows = pilot.app.screen.query_one(ProbeList)
    rows.highlighted = rows.get_option_index(name)
    await pilot.pause()
    await pilot.pause()


def row(app: WizardApp, name: str) -> str:
    return str(app.screen.query_one(ProbeList).get_option(name).prompt)


async def opened(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, ToolchainScreen), "the toolchain", settle=False)
    await pilot.pause()


def showing(name: str, *keys: str) -> Callable[[Pilot[Any]], Any]:
    async def prepare(pilot: Pilot[Any]) -> None:
        await feed(pilot, *a_machine(), finding("tvm-codegen", found="cuda, llvm, webgpu"))
        pilot.app.screen.state.asked -= set(BY_ID) - {"docker", "vulkan-loader"}
        pilot.app.screen.post_message(CheckSaid(Started("docker")))
        await pilot.pause()
        await highlight(pilot, name)
        await pilot.press(*keys)
        await pilot.pause()

    return prepare
