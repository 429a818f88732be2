"""A rolling cache in real WebLLM, which turns it on, and whose chats go on past the window (SwiftShader)."""

import pytest
from browser.harness import Browser, Page
from browser_chat_support import two_turns
from exports import LIBRARY
from rolling_support import WINDOW, check, error, expected, reference, rolling

pytestmark = pytest.mark.browser

TOLERANCE = 1e-2
"""Of the logits' standard deviation, as for any WebGPU implementation (here errors are near 1e-5)."""


def _load(browser: Browser, quantization: str) -> Page:
    folder = rolling("webgpu", quantization=quantization)
    return browser.load(folder, folder / LIBRARY["webgpu"])


def test_logits_past_the_window(browser: Browser) -> None:
    """By chunks and token by token, with sinks that come with the chunk that rolls, and after a reset."""
    page = _load(browser, "q0f32")
    for fed in ([20, *[1] * 12], [WINDOW, WINDOW, WINDOW, 1, 1], [2, WINDOW, 3]):
        check(lambda ids: page.forward(ids, prefill=len(ids) > 1), fed, expected(), TOLERANCE)
        page.reset()


def test_a_chat_of_two_turns_goes_on_past_the_window(browser: Browser) -> None:
    """A prompt longer than the window, an answer longer than it, and a second turn on the same cache."""
    page, folder = _load(browser, "q4f32_1"), rolling("webgpu", quantization="q4f32_1")
    chat = two_turns(page, folder, "red and blue and green")
    assert len(chat.prompt) > WINDOW
    want = reference("q4f32_1", chat.fed)
    errors = [error(found, want[n]) for found, n in zip(chat.logits, chat.at, strict=True)]
    assert max(errors) < TOLERANCE

    # Nobody stops a chat at the window: where a context has an end, this one has none.
    page.reset()
    told = page.chat(chat.first, temperature=0, max_tokens=2 * WINDOW, ignore_eos=True, logits=False)
    assert (len(told.tokens), told.finish_reason) == (2 * WINDOW, "length")
