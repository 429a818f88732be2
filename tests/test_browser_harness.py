"""The browser harness: what other tests believe of it, checked against a real model and a real failure."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.harness import Browser, BrowserError, Page
from exports import LIBRARY, export

pytestmark = pytest.mark.browser

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
VOCABULARY = 384


@pytest.fixture(scope="module")
def model() -> Path:
    return export("llama", "q4f32_1", "webgpu")


@pytest.fixture(scope="module")
def loaded(browser: Browser, model: Path) -> Page:
    return browser.load(model, model / LIBRARY["webgpu"])


@pytest.fixture
def page(loaded: Page) -> Page:
    loaded.reset()
    return loaded


def test_the_gpu_is_software(browser: Browser) -> None:
    adapter = browser.adapter()
    assert adapter["architecture"] == "swiftshader"
    assert "shader-f16" not in adapter["features"]


def test_a_reply_holds_the_logits_of_every_token(page: Page) -> None:
    reply = page.chat(HELLO, temperature=0, max_tokens=4)
    assert reply.logits.shape == (len(reply.tokens), VOCABULARY)
    assert reply.logits.dtype == np.float32
    assert reply.tokens == reply.logits.argmax(axis=1).tolist()
    assert (reply.finish_reason, reply.usage["completion_tokens"]) == ("length", 4)
    assert np.array_equal(page.chat(HELLO, temperature=0, max_tokens=4).logits, reply.logits)


def test_logits_are_left_out_when_not_wanted(page: Page) -> None:
    reply = page.chat(HELLO, temperature=0, max_tokens=2, logits=False)
    assert len(reply.tokens) == 2
    assert reply.logits.size == 0


def test_forced_tokens_are_sampled_and_seen_by_the_model(page: Page) -> None:
    chosen = [40, 41, 42]
    forced = page.chat(HELLO, temperature=0, force=chosen)
    assert forced.tokens == chosen
    free = page.chat(HELLO, temperature=0, max_tokens=2)
    assert np.array_equal(forced.logits[0], free.logits[0])
    assert free.tokens[0] != chosen[0]
    assert not np.array_equal(forced.logits[1], free.logits[1])
    longer = page.chat(HELLO, temperature=0, force=chosen, max_tokens=5)
    assert longer.tokens[:3] == chosen
    assert longer.tokens[3:] == longer.logits[3:].argmax(axis=1).tolist()


def test_a_second_turn_continues_the_conversation(page: Page) -> None:
    first = page.chat(HELLO, temperature=0, force=[70, 71, 72])
    turns = [*HELLO, {"role": "assistant", "content": first.text}, {"role": "user", "content": "More"}]
    second = page.chat(turns, temperature=0, max_tokens=1)
    page.reset()
    alone = page.chat([turns[-1]], temperature=0, max_tokens=1)
    # The engine counts only what it had not seen, so the earlier turns were still in its cache.
    assert second.usage["prompt_tokens"] > alone.usage["prompt_tokens"]
    assert not np.allclose(second.logits, alone.logits)


def test_raw_tokens_go_in_a_chunk_or_one_by_one(page: Page) -> None:
    tokens = [1, 60, 61, 62, 63]
    chunk = page.forward(tokens)
    page.reset()
    for token in tokens:
        single = page.forward([token], prefill=False)
    assert chunk.shape == (VOCABULARY,)
    assert np.abs(chunk - single).max() < 1e-2 * chunk.std()


def test_a_completion_has_no_template(page: Page) -> None:
    completion = page.complete("Hello", temperature=0, max_tokens=2)
    chat = page.chat(HELLO, temperature=0, max_tokens=2)
    assert completion.usage["prompt_tokens"] < chat.usage["prompt_tokens"]
    assert len(completion.tokens) == len(completion.logits) == 2


def test_options_reach_webllm(page: Page) -> None:
    biased = page.chat(HELLO, temperature=0, max_tokens=3, logit_bias={"50": 100})
    assert biased.tokens == [50, 50, 50]
    # What is recorded is the model's own opinion, before the bias.
    assert biased.logits[0].argmax() != 50
    drawn = [page.chat(HELLO, temperature=1.5, max_tokens=6, seed=7).tokens for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_function_of_the_library_runs_on_arrays(page: Page, model: Path) -> None:
    # Rows that only pad the vocabulary have no token, so nothing may be sampled there.
    active = json.loads((model / "mlc-chat-config.json").read_text())["active_vocab_size"]
    assert active < VOCABULARY
    logits = np.linspace(-4, 4, VOCABULARY, dtype=np.float32).reshape(1, 1, -1)
    [probabilities], inputs = page.run("softmax_with_temperature", logits, np.array([2], np.float32))
    expected = np.exp(logits / 2)
    expected[..., active:] = 0
    np.testing.assert_allclose(probabilities, expected / expected.sum(), rtol=1e-4)
    assert np.array_equal(inputs[0], logits)

    flat = np.zeros((1, VOCABULARY), np.float32)
    zero, token, bias = np.zeros(1, np.int32), np.array([9], np.int32), np.array([2.5], np.float32)
    _, [changed, *_] = page.run("apply_logit_bias_inplace", flat, zero, token, bias)
    assert changed[0, 9] == 2.5
    assert math.isclose(np.abs(changed).sum(), 2.5)


def test_an_error_inside_the_runtime_is_a_message_and_not_the_end(page: Page) -> None:
    wrong = np.zeros((1, VOCABULARY), np.float32)
    with pytest.raises(BrowserError, match=r"ValueError: .*softmax_with_temperature.*ndim 3 but get 2"):
        page.run("softmax_with_temperature", wrong, np.ones(1, np.float32))
    assert page.chat(HELLO, temperature=0, max_tokens=1).tokens


def test_what_webllm_refuses_is_told(browser: Browser, model: Path, tmp_path: Path) -> None:
    # The last test of the module's page: a failed load leaves the engine without a model.
    with pytest.raises(BrowserError, match="WindowSizeSpecificationError"):
        browser.load(model, model / LIBRARY["webgpu"], overrides={"context_window_size": -1})
    broken = tmp_path / "model.wasm"
    broken.write_bytes(b"not a module")
    with pytest.raises(BrowserError, match=r"CompileError|magic"):
        browser.load(model, broken)


def test_a_page_that_hangs_is_ended() -> None:
    with Browser(timeout=20) as browser:
        browser.timeout = 1
        with pytest.raises(BrowserError, match="No answer within 1 seconds"):
            browser.submit(lambda: browser._page.evaluate("() => { for (;;); }"))
        with pytest.raises(BrowserError):
            browser.adapter()
