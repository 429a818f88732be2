"""Shared fixtures: the golden models, a WebGPU to run kernels in, and WebLLM to load exports into."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from browser.harness import Browser
    from webgpu_kernels.device import WebGPU

GOLDEN = Path(__file__).parent / "data" / "golden"
FAMILIES = ("gemma3_text", "llama", "llama_tied", "llama3_rope")

# No test may depend on how busy the machine is.
settings.register_profile("mlc-wizard", deadline=None)
settings.load_profile("mlc-wizard")


@pytest.fixture(params=FAMILIES)
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder of one golden model: hf/, expected/, reference.safetensors."""
    return GOLDEN / str(request.param)


@pytest.fixture(scope="module")
def webgpu() -> "Iterator[WebGPU]":
    """Headless Chromium as a device for TVM functions; imported late, for the compiler is slow to load."""
    from webgpu_kernels.device import WebGPU

    with WebGPU() as device:
        yield device


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Real WebLLM in headless Chromium, started once; each module loads the export that it is about."""
    from browser.harness import Browser

    with Browser() as started:
        yield started
