"""Packages for WebGPU give the reference's logits in real WebLLM in a real browser (SwiftShader)."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.harness import Browser, Page
from browser_chat_support import two_turns
from conftest import FAMILIES
from exports import GOLDEN, LIBRARY, QUANTIZATIONS, decoder, export
from numpy.typing import NDArray
from safetensors.numpy import load_file

from engine.embedded import evaluate

pytestmark = pytest.mark.browser

TOLERANCE = 1e-4
"""Of the logits' standard deviation. Errors are near 1e-5: nothing hangs on a device's own cos or sin."""


@cache
def _reference(model: str) -> dict[str, NDArray[Any]]:
    return load_file(GOLDEN / model / "reference.safetensors")


def _load(browser: Browser, folder: Path) -> Page:
    return browser.load(folder, folder / LIBRARY["webgpu"])


def _error(found: NDArray[Any], want: NDArray[Any]) -> float:
    assert np.isfinite(found).all()
    return float(np.abs(found - want).max() / want.std())


@pytest.mark.parametrize(
    ("model", "quantization"),
    [*((model, "q4f32_1") for model in FAMILIES), ("gemma3_text", "q0f32"), ("llama", "q0f32")],
)
def test_logits_at_every_step_and_greedy_tokens(browser: Browser, model: str, quantization: str) -> None:
    """A chunk longer than the window, a short chunk on the cache, token by token; then the greedy run."""
    reference = _reference(model)
    ids, want = reference["input_ids"].tolist(), reference[f"logits_{quantization}"]
    page = _load(browser, export(model, quantization, "webgpu"))
    errors = [_error(page.forward(ids[:20]), want[19]), _error(page.forward(ids[20:25]), want[24])]
    for n in range(25, len(ids)):
        errors.append(_error(page.forward(ids[n : n + 1], prefill=False), want[n]))
    assert max(errors) < TOLERANCE

    page.reset()
    errors = [_error(page.forward(ids), want[-1])]
    page.reset()
    for n in range(18):  # a prompt of one token goes through `decode`, from the very first
        errors.append(_error(page.forward(ids[n : n + 1], prefill=False), want[n]))
    assert max(errors) < TOLERANCE

    if quantization == "q4f32_1":
        page.reset()
        logits, said = page.forward(reference["prompt_ids"].tolist()), []
        for _ in reference["greedy_q4f32_1"]:
            said.append(int(logits.argmax()))
            logits = page.forward(said[-1:], prefill=False)
        assert said == reference["greedy_q4f32_1"].tolist()


@pytest.mark.parametrize("chunk", [8, 16, 64])
@pytest.mark.parametrize("model", ["gemma3_text", "llama3_rope"])
def test_chat_of_two_turns_that_passes_the_window(browser: Browser, model: str, chunk: int) -> None:
    """Prompts in several chunks: below, equal to and above the window of 16 tokens."""
    folder = export(model, "q4f32_1", "webgpu", chunk=chunk)
    chat = two_turns(_load(browser, folder), folder, "red and blue")
    assert len(chat.fed) > 40  # far past the window
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q4f32_1"])
    want = evaluate.logits(spec, stored, np.asarray(chat.fed))
    errors = [_error(found, want[n]) for found, n in zip(chat.logits, chat.at, strict=True)]
    assert max(errors) < TOLERANCE
