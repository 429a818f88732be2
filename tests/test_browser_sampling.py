"""Sampling in real WebLLM: each token is the one that the recorded logits and the request call for.

WebLLM reads logits from our library, then calls our kernels in this order: grammar mask, (the logits are
recorded here), logit bias, penalties, softmax with temperature, sort, top-p. Its generator of uniform
samples is seeded by the request, so the token of every step follows from what was recorded.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from browser.harness import Browser, BrowserError, Page, Reply
from exports import GOLDEN, LIBRARY, export
from json_prefix import is_json_prefix
from numpy.typing import NDArray
from sampling_reference import Floats, biased, is_best, nucleus, penalised, sampled, uniforms

from engine.embedded.kernels.sampling import FORBIDDEN

pytestmark = pytest.mark.browser

MODEL, VOCABULARY, ACTIVE = "gemma3_text", 384, 376
"""Tokens from ACTIVE on only pad the embedding."""
SPECIAL = {0: b"<pad>", 1: b"<bos>", 2: b"", 3: b"<unk>", 4: b"<start_of_turn>", 5: b""}
"""What the text of a reply shows of the special tokens, <eos> and <end_of_turn> being its end."""
STOP_TOKENS = {2, 5}
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    """The golden Gemma 3 in WebLLM."""
    folder = export(MODEL, "q4f32_1", "webgpu")
    return browser.load(folder, folder / LIBRARY["webgpu"])


def bias_option(bias: Mapping[int, float]) -> dict[str, float]:
    """As a request spells it."""
    return {str(token): value for token, value in bias.items()}


def replied(page: Page, **options: Any) -> Reply:
    """An answer to HELLO; its logits without those of the padding, which has no probability."""
    reply = page.chat(HELLO, **options)
    assert reply.logits.shape[1] == VOCABULARY
    return replace(reply, logits=reply.logits[:, :ACTIVE])


# requests


@pytest.mark.parametrize(
    ("temperature", "top_p", "seed", "steps"), [(1.0, 0.6, 7, 32), (0.7, 0.9, 8, 24), (1.0, 1.0, 9, 16)]
)
def test_a_seed_draws_the_tokens_of_the_nucleus(
    page: Page, temperature: float, top_p: float, seed: int, steps: int
) -> None:
    options: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed, "max_tokens": steps}
    reply = replied(page, ignore_eos=True, **options)
    assert reply.logits.shape == (steps, ACTIVE)
    assert len(reply.tokens) == steps
    outside = 0
    for logits, token, uniform in zip(reply.logits, reply.tokens, uniforms(seed), strict=False):
        assert token in sampled(logits, temperature, top_p, uniform)
        outside += ACTIVE - len(nucleus(logits, temperature, top_p)[0])
    assert outside > 20 * steps if top_p < 1 else outside == 0
    assert len(set(reply.tokens)) > steps / 2


def test_the_smallest_top_p_leaves_the_most_probable_token(page: Page) -> None:
    reply = replied(page, temperature=2, top_p=1e-5, seed=1, max_tokens=6, ignore_eos=True)
    assert len(reply.tokens) == 6
    for logits, token in zip(reply.logits, reply.tokens, strict=True):
        assert is_best(logits, token)


@pytest.fixture(scope="module")
def greedy(page: Page) -> Reply:
    """A greedy reply without further options."""
    reply = replied(page, temperature=0, max_tokens=10, ignore_eos=True)
    assert all(map(is_best, reply.logits, reply.tokens))
    return reply


@pytest.mark.parametrize(
    "penalties",
    [
        {"repetition_penalty": 1.3},
        {"presence_penalty": 0.8},
        {"frequency_penalty": 0.9},
        {"repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.3},
    ],
    ids="+".join,
)
def test_a_penalty_makes_greedy_replies_repeat_less(
    page: Page, greedy: Reply, penalties: dict[str, Any]
) -> None:
    reply = replied(page, temperature=0, max_tokens=10, ignore_eos=True, **penalties)
    for step, (logits, token) in enumerate(zip(reply.logits, reply.tokens, strict=True)):
        assert is_best(penalised(logits, reply.tokens[:step], **penalties), token)
    assert reply.tokens != greedy.tokens
    assert len(set(reply.tokens)) > len(set(greedy.tokens))


def test_bias_and_penalties_together_shape_the_distribution(page: Page) -> None:
    # Negative penalties ask for repetition, so that counts above one occur and tell much.
    penalties: dict[str, Any] = {
        "repetition_penalty": 1.2,
        "presence_penalty": -0.6,
        "frequency_penalty": -1.5,
    }
    bias = {114: 3.0, 255: -2.5, 40: 2.0}
    seed, steps = 5, 24
    options: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "seed": seed, "max_tokens": steps}
    reply = replied(page, ignore_eos=True, logit_bias=bias_option(bias), **penalties, **options)
    assert len(reply.tokens) == steps

    def explained(change: Any) -> list[bool]:
        return [
            token in sampled(change(logits, reply.tokens[:step]), 0.8, 0.95, uniform)
            for step, (logits, token, uniform) in enumerate(
                zip(reply.logits, reply.tokens, islice(uniforms(seed), steps), strict=True)
            )
        ]

    assert all(explained(lambda logits, seen: penalised(biased(logits, bias), seen, **penalties)))
    # The reply tells these apart, so the line above means something.
    without = {**penalties, "repetition_penalty": 1}
    assert not all(explained(lambda logits, seen: biased(penalised(logits, seen, **penalties), bias)))
    assert not all(explained(lambda logits, seen: penalised(biased(logits, bias), seen, **without)))
    assert not all(explained(lambda logits, seen: penalised(biased(logits, bias), [*set(seen)], **penalties)))
    assert not all(explained(lambda logits, seen: penalised(logits, seen, **penalties)))


def test_logit_bias_forces_and_forbids(page: Page, greedy: Reply) -> None:
    forced = replied(page, temperature=1, seed=3, max_tokens=4, logit_bias={"77": 100})
    assert forced.tokens == [77] * 4
    first = greedy.tokens[0]
    forbidden = replied(
        page, temperature=0, max_tokens=6, ignore_eos=True, logit_bias=bias_option({first: -100})
    )
    assert first not in forbidden.tokens
    for logits, token in zip(forbidden.logits, forbidden.tokens, strict=True):
        assert is_best(biased(logits, {first: -100}), token)


def late_win(reply: Reply) -> tuple[int, int, float]:
    """The latest step that a bias on another token can change before any other step; token and bias."""
    behind = reply.logits.max(axis=1, keepdims=True) - reply.logits
    for step in range(len(reply.tokens) - 1, 0, -1):
        now, before = behind[step], behind[:step].min(axis=0)
        now[reply.tokens[step]] = np.inf
        token = int(np.argmax(before - now))
        if before[token] - now[token] > 0.02:
            return step, token, float(before[token] + now[token]) / 2
    raise AssertionError("no such step")


def test_a_moderate_logit_bias_changes_the_step_where_it_suffices(page: Page, greedy: Reply) -> None:
    step, token, value = late_win(greedy)
    bias = {token: value}
    reply = replied(page, temperature=0, max_tokens=10, ignore_eos=True, logit_bias=bias_option(bias))
    assert reply.tokens[: step + 1] == [*greedy.tokens[:step], token]
    for logits, chosen in zip(reply.logits, reply.tokens, strict=True):
        assert is_best(biased(logits, bias), chosen)


# JSON mode

TWO_FIELDS = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["S", "M"]}},
    "required": ["ok", "size"],
}


def vocabulary() -> dict[int, bytes]:
    """What each token but the special ones spells."""
    tokenizer = json.loads((GOLDEN / MODEL / "hf" / "tokenizer.json").read_text(encoding="utf-8"))
    spelled = {}
    for text, token in tokenizer["model"]["vocab"].items():
        byte = re.fullmatch(r"<0x(..)>", text)
        spelled[token] = bytes.fromhex(byte[1]) if byte else text.replace("▁", " ").encode()
    return {token: spelled[token] for token in spelled.keys() - SPECIAL.keys()}


def allowed(logits: NDArray[np.float32]) -> set[int]:
    """The tokens that the grammar left; what it took has exactly the mask's value."""
    assert np.all((logits == np.float32(FORBIDDEN)) | (np.abs(logits) < 1e3))
    return {int(token) for token in np.flatnonzero(logits > -1e3)}


def check_tokens(reply: Reply, seed: int, bias: Mapping[int, float]) -> None:
    """Every token is allowed, and the one that its step's sample selects among those."""
    for logits, token, uniform in zip(reply.logits, reply.tokens, uniforms(seed), strict=False):
        assert token in allowed(logits)
        assert token in sampled(biased(logits, bias), 1.0, 1.0, uniform)


def test_json_mode_allows_exactly_what_may_become_json(page: Page) -> None:
    # The schema {} is any JSON. (Without a schema, json_object fails in WebLLM 0.2.86 itself.)
    schema = {"type": "json_object", "schema": "{}"}
    spelled = vocabulary()
    # Structure is likely, for a model that has not learned it.
    wanted = {b"{": 5.0, b"[": 4.0, b'"': 4.0, b'",': 5.0, b",": 4.0, b"}": 3.0, b"]": 3.0}
    bias = {token: wanted[text] for token, text in spelled.items() if text in wanted}
    seed = 6
    options: dict[str, Any] = {
        "temperature": 1,
        "seed": seed,
        "max_tokens": 32,
        "logit_bias": bias_option(bias),
    }
    reply = page.chat(HELLO, response_format=schema, **options)
    check_tokens(reply, seed, bias)
    text = b""
    for logits, token in zip(reply.logits, reply.tokens, strict=True):
        left = allowed(logits)
        assert left.isdisjoint(range(len(spelled) + len(SPECIAL), VOCABULARY)), "padding spells nothing"
        assert left & STOP_TOKENS == (STOP_TOKENS if _is_json(text) else set())
        for other, spelling in spelled.items():
            if other in left:
                # The grammar takes lead bytes that UTF-8 has no use for; who reads them sees U+FFFD.
                assert is_json_prefix(text + spelling, errors="replace"), (text, spelling)
            elif text and spelling != b"\r":
                # It has no white space before and after all, and no carriage return anywhere.
                assert _is_json(text) or not is_json_prefix(text + spelling), (text, spelling)
        text += spelled[token] if token in spelled else SPECIAL[token]
    assert reply.text == text.decode(errors="replace")
    assert all(is_json_prefix(reply.text[:end].encode()) for end in range(len(reply.text) + 1))
    assert set(b'{":,') <= set(text), "a reply with some structure"


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_json_mode_with_a_schema_ends_with_what_the_schema_says(page: Page) -> None:
    spelled = vocabulary()
    spaces = {token: -100.0 for token, text in spelled.items() if not text.strip()}
    seed = 3
    options: dict[str, Any] = {
        "temperature": 1,
        "seed": seed,
        "max_tokens": 40,
        "logit_bias": bias_option(spaces),
    }
    schema = {"type": "json_object", "schema": json.dumps(TWO_FIELDS)}
    reply = page.chat(HELLO, response_format=schema, **options)
    assert reply.finish_reason == "stop"
    value = json.loads(reply.text)
    assert list(value) == ["ok", "size"]
    assert isinstance(value["ok"], bool)
    assert value["size"] in ("S", "M")
    check_tokens(reply, seed, spaces)
    # The mask changes nothing but what it forbids.
    free = page.chat(HELLO, force=reply.tokens)
    assert free.tokens == reply.tokens
    for masked, raw in zip(reply.logits, free.logits, strict=True):
        left = sorted(allowed(masked))
        assert 0 < len(left) < 32
        np.testing.assert_allclose(masked[left], raw[left], rtol=0, atol=1e-5)


# the library's functions, called directly


def row(values: Floats) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, -1)


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def i32(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


@pytest.mark.parametrize("temperature", [1e-6, 0.3, 1, 10])
def test_softmax_with_temperature(page: Page, temperature: float) -> None:
    logits = np.random.default_rng(0).normal(size=VOCABULARY).astype(np.float32) * 5
    logits[100:140] = 25 - np.arange(40) * temperature  # so that some are close at every temperature
    (got,), _ = page.run("softmax_with_temperature", logits.reshape(1, 1, -1), f32(temperature))
    scaled = logits.astype(np.float64) / np.float32(temperature)
    weights = np.exp(scaled - scaled.max()) * (np.arange(VOCABULARY) < ACTIVE)
    np.testing.assert_allclose(got.ravel(), weights / weights.sum(), rtol=3e-5, atol=1e-30)


@pytest.mark.parametrize("kind", ["distinct", "ties", "equal"])
def test_argsort_is_stable_and_descending(page: Page, kind: str) -> None:
    dice = np.random.default_rng(1)
    values = {
        "distinct": dice.random(VOCABULARY),
        "ties": dice.integers(0, 5, VOCABULARY) / 8,
        "equal": np.full(VOCABULARY, 0.5),
    }[kind].astype(np.float32)
    (ordered, indices), _ = page.run("argsort_probs", row(values))
    expected = np.argsort(-values, kind="stable")
    np.testing.assert_array_equal(indices[0], expected)
    np.testing.assert_array_equal(ordered[0], values[expected])


@pytest.mark.parametrize("top_p", [0.05, 0.6, 0.999, 1])
def test_top_p_gives_each_token_its_share(page: Page, top_p: float) -> None:
    count = 200
    logits = np.random.default_rng(2).normal(size=VOCABULARY) * 2
    weights = row(np.exp(logits) / np.exp(logits).sum())
    (ordered, indices), _ = page.run("argsort_probs", weights)

    def draw(uniform: float) -> int:
        (token,), _ = page.run("sample_with_top_p", ordered, indices, f32(uniform), i32(0), f32(top_p))
        return int(token[0])

    threshold = float(np.float32(top_p))
    tokens, probabilities = nucleus(np.log(weights[0].astype(np.float64)), 1, threshold)
    assert draw(0) == tokens[0]
    if top_p < 1:  # the tail of the whole row is beyond float32
        assert draw(1 - 2**-24) == draw(1) == tokens[-1]
    # Evenly spread samples meet every token in proportion, to within one.
    drawn = Counter(draw((step + 0.5) / count) for step in range(count))
    assert drawn.keys() <= set(tokens.tolist())
    for token, probability in zip(tokens.tolist(), probabilities, strict=True):
        assert abs(drawn[token] - count * probability) <= 1 + 1e-3


def test_bias_penalties_and_mask_change_their_tokens_alone(page: Page) -> None:
    dice = np.random.default_rng(3)
    logits = row(dice.normal(size=VOCABULARY))
    tokens = dice.permutation(VOCABULARY)[:300].astype(np.int32)
    zeros = np.zeros(300, np.int32)
    values = dice.normal(size=300).astype(np.float32)
    _, after = page.run("apply_logit_bias_inplace", logits, zeros, tokens, values)
    expected = biased(logits[0], dict(zip(tokens.tolist(), values.tolist(), strict=True)))
    np.testing.assert_allclose(after[0][0], expected, rtol=0, atol=1e-6)

    counts = dice.integers(1, 6, 300).astype(np.int32)
    penalties = {"presence_penalty": 0.5, "frequency_penalty": 0.25, "repetition_penalty": 1.5}
    arrays = (i32(0), zeros, tokens, counts, row(np.array([*penalties.values()])))
    _, after = page.run("apply_penalty_inplace", logits, *arrays)
    expected = penalised(logits[0], np.repeat(tokens, counts).tolist(), **penalties)
    np.testing.assert_allclose(after[0][0], expected, rtol=1e-6, atol=1e-6)

    legal = dice.random(VOCABULARY) < 0.5
    mask = np.packbits(legal, bitorder="little").view(np.int32)
    _, after = page.run("apply_bitmask_inplace", logits, i32(0), mask.reshape(1, -1))
    np.testing.assert_array_equal(after[0][0], np.where(legal, logits[0], np.float32(FORBIDDEN)))


# last, for it takes the place of the loaded model


def test_the_library_of_another_model_is_refused_by_the_name_of_what_it_misses(browser: Browser) -> None:
    other = export("llama", "q4f32_1", "webgpu") / LIBRARY["webgpu"]
    with pytest.raises(BrowserError, match=r"Cannot find parameter in cache: model\.embed_tokens\.q_weight"):
        browser.load(export(MODEL, "q4f32_1", "webgpu"), other)
