"""Shared fixtures: the golden models, and a WebGPU to run kernels in."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
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
