"""Shared fixtures: the golden models."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "data" / "golden"
FAMILIES = ("gemma3_text", "llama", "llama_tied", "llama3_rope")


@pytest.fixture(params=FAMILIES)
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder of one golden model: hf/, expected/, reference.safetensors."""
    return GOLDEN / str(request.param)
