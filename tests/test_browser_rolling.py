"""A rolling cache in real WebLLM, which turns it on, and whose chats go on past the window (SwiftShader)."""

import json

import pytest
from browser.harness import Browser, Page
from exports import LIBRARY
from test_rolling_cache import WINDOW, check, error, expected, reference, rolling
from tokenizers import Tokenizer

from engine.embedded.chat.conversation import Conversation

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
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "mlc-chat-config.json").read_text(encoding="utf-8"))
    conversation = Conversation.from_json(config["conv_template"])
    # Greedy tokens of random weights need not be text: what is said is chosen here.
    said = tokenizer.encode("red and blue and green", add_special_tokens=False).ids
    reply = [*said, conversation.stop_token_ids[0]]
    first = [{"role": "user", "content": "What are the colours of the sky?"}]
    one = page.chat(first, force=reply, temperature=0)
    assert (one.tokens, one.finish_reason) == (reply, "stop")
    second = [*first, {"role": "assistant", "content": one.text}, {"role": "user", "content": "Say why."}]
    two = page.chat(second, force=reply, temperature=0)

    prompt = conversation.token_ids(first, tokenizer)
    follow = conversation.token_ids(second, tokenizer, start=2)
    fed = [*prompt, *said, *follow, *said]
    assert len(prompt) > WINDOW
    want = reference("q4f32_1", fed)
    at = [len(prompt) - 1 + i for i in range(len(reply))]
    at += [len(prompt) + len(said) + len(follow) - 1 + i for i in range(len(reply))]
    errors = [error(found, want[n]) for found, n in zip([*one.logits, *two.logits], at, strict=True)]
    assert max(errors) < TOLERANCE

    # Nobody stops a chat at the window: where a context has an end, this one has none.
    page.reset()
    told = page.chat(first, temperature=0, max_tokens=2 * WINDOW, ignore_eos=True, logits=False)
    assert (len(told.tokens), told.finish_reason) == (2 * WINDOW, "length")
