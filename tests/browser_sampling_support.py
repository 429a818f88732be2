"""What tests of sampling in WebLLM share: the golden Gemma 3, loaded, and its vocabulary."""

import sys
from collections.abc import Mapping

import pytest
from browser.webllm import Host, Page
from exports import LIBRARY, export

MODEL, VOCABULARY, ACTIVE = "gemma3_text", 384, 376
"""Tokens from ACTIVE on only pad the embedding."""
HELLO = [{"role": "user", "content": "Hello"}]


FLOAT16 = pytest.param(
    "q4f16_1",
    marks=pytest.mark.skipif(sys.platform != "linux", reason="Mesa's software GPU is packaged for Linux"),
)


@pytest.fixture(scope="module", params=["q4f32_1", FLOAT16])
def page(request: pytest.FixtureRequest) -> Page:
    """The golden Gemma 3 in WebLLM: in the browser, and in Node.js where there is shader-f16."""
    folder = export(MODEL, request.param, "webgpu")
    host: Host = request.getfixturevalue("browser" if request.param == "q4f32_1" else "node")
    return host.load(folder, folder / LIBRARY["webgpu"])


def bias_option(bias: Mapping[int, float]) -> dict[str, float]:
    """As a request spells it."""
    return {str(token): value for token, value in bias.items()}
