"""Shared fixtures: the golden models, a WebGPU to run kernels in, and WebLLM to load exports into."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from browser.harness import Browser
    from browser.node import Node
    from runner_stand_ins import StandIn
    from tui_runs import Begun, Clock
    from webgpu_kernels.device import WebGPU
    from webgpu_kernels.either import Device

GOLDEN = Path(__file__).parent / "data" / "golden"
BY_MLC_LLM = (
    *("gemma3_text", "llama", "llama_tied", "llama3_rope"),
    *("gemma", "gemma2", "gpt_neox", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "stablelm"),
)
"""The golden models for which there is what mlc_llm wrote (expected/)."""
FAMILIES = (*BY_MLC_LLM, "gpt2", "phi")
"""Every golden model; tools/make_golden_models.py made those that mlc_llm did not convert."""

LONGEST = (
    *("test_browser_logits", "test_float16_logits", "test_wgsl", "test_logits_quantizations"),
    *("test_native_batches", "test_logits_cpu", "test_tui_flow", "test_docker_image"),
    *("test_screenshots", "test_runner_killed"),
    *("test_runner", "test_native_libraries", "test_rolling_cache", "test_docker_runs"),
    *("test_rolling_kernels", "test_official_runs", "test_logits_features", "test_browser_sampling"),
    *("test_attention_kernels", "test_browser_rolling", "test_hub_look", "test_tui_run", "test_tui_app"),
    *("test_tui_terminal", "test_tui_hub", "test_opencl", "test_hub"),
)
"""Files that take a minute or more, the longest first, as measured on two busy cores."""

# The Hub's client believes what it keeps beside models: a stand-in Hub's answers are not for the user's.
_hub_home = tempfile.TemporaryDirectory(prefix="mlc-wizard-hub-", ignore_cleanup_errors=True)
os.environ["HF_HOME"] = _hub_home.name

# No test may depend on how busy the machine is.
settings.register_profile("mlc-wizard", deadline=None)
settings.load_profile("mlc-wizard")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers take the longest files first, so that none is left with one at the end."""
    if hasattr(config, "workerinput"):
        rank = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(params=FAMILIES)
def referenced(request: pytest.FixtureRequest) -> Path:
    """The folder of one golden model: hf/, config.transformers5.json, reference.safetensors."""
    return GOLDEN / str(request.param)


@pytest.fixture(params=BY_MLC_LLM)
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder of one golden model that mlc_llm converted: as above, and expected/."""
    return GOLDEN / str(request.param)


@pytest.fixture
def wizard_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of our own, no presets of the user's, and a machine that is always the same."""
    from engine import machine, preset
    from engine.backends.docker import inspection as docker
    from engine.backends.official import interpreter

    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "presets").mkdir()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # the client keeps more there than models
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # no test asks the real Hub
    monkeypatch.chdir(work)
    monkeypatch.setattr(preset, "user_folder", lambda: Path("..") / "presets")
    same = machine.Machine(ram_total=16 * 10**9, ram_available=8 * 10**9, disk_free=84 * 10**9)
    monkeypatch.setattr(machine, "inspect", lambda _output: same)
    # Nor are there other compilers than ours.
    monkeypatch.setattr(docker, "client", lambda: None)
    monkeypatch.setattr(interpreter, "_likely", lambda: iter(()))
    return work


@pytest.fixture
def stand_in(tmp_path: Path) -> "Callable[..., StandIn]":
    """Makes backends of stand-in programs, whose tally is this test's."""
    from runner_stand_ins import StandIn

    return lambda **kwargs: StandIn(tmp_path / "tally", **kwargs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """The clock of the step Run; it stands until it is set."""
    import datetime

    from tui_runs import Clock

    from tui.screens.run import RunScreen

    standing = Clock()
    noon = datetime.datetime(2026, 11, 22, 5, 0, 27)
    monkeypatch.setattr(RunScreen, "clock", standing)
    monkeypatch.setattr(RunScreen, "wall_clock", staticmethod(lambda: noon))
    return standing


@pytest.fixture
def begun(wizard_home: Path, clock: "Clock", monkeypatch: pytest.MonkeyPatch) -> "Begun":
    """Runs are noted here instead of begun; the test says what they say."""
    import threading

    from engine.plan import ExportPlan
    from tui.screens.run import RunScreen

    runs: Begun = []

    def note(_self: RunScreen, plan: ExportPlan, cancel: threading.Event, *, fresh: bool) -> None:
        runs.append({"plan": plan, "cancel": cancel, "fresh": fresh})

    monkeypatch.setattr(RunScreen, "_run", note)
    return runs


@pytest.fixture(scope="module")
def webgpu() -> "Iterator[WebGPU]":
    """Headless Chromium as a device for TVM functions; imported late, for the compiler is slow to load."""
    from webgpu_kernels.device import WebGPU

    with WebGPU() as device:
        yield device


@pytest.fixture(params=["cpu", "webgpu"])
def device(request: pytest.FixtureRequest) -> "Device":
    """Where kernels run; each test runs on both."""
    from webgpu_kernels import either

    return either.cpu() if request.param == "cpu" else either.webgpu(request.getfixturevalue("webgpu"))


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Real WebLLM in headless Chromium, started once; each module loads the export that it is about."""
    from browser.harness import Browser

    with Browser() as started:
        yield started


@pytest.fixture(scope="session")
def node() -> "Iterator[Node]":
    """Real WebLLM in Node.js, on a WebGPU with shader-f16, started once; modules load into it as above."""
    from browser.node import Node

    with Node() as started:
        yield started
