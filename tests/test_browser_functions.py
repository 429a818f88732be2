"""The library's sampling functions, called in real WebLLM directly, and a library that is another model's."""

from collections import Counter

import numpy as np
import pytest
from browser.harness import Browser, BrowserError, Page
from browser_sampling_support import ACTIVE, MODEL, VOCABULARY, page
from exports import LIBRARY, export
from numpy.typing import NDArray
from sampling_reference import Floats, biased, nucleus, penalised

from engine.embedded.kernels.sampling import FORBIDDEN

__all__ = ["page"]

pytestmark = pytest.mark.browser


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
