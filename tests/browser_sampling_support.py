"""What tests of sampling in WebLLM share: the golden Gemma 3, loaded, and its vocabulary."""

from collections.abc import Mapping

import pytest
from browser.harness import Browser, Page
from exports import LIBRARY, export

MODEL, VOCABULARY, ACTIVE = "gemma3_text", 384, 376
"""Tokens from ACTIVE on only pad the embedding."""
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    """The golden Gemma 3 in WebLLM."""
    folder = export(MODEL, "q4f32_1", "webgpu")
    return browser.load(folder, folder / LIBRARY["webgpu"])


def bias_option(bias: Mapping[int, float]) -> dict[str, float]:
    """As a request spells it."""
    return {str(token): value for token, value in bias.items()}
