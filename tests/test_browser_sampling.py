"""Sampling in real WebLLM: each token is the one that the recorded logits and the request call for.

WebLLM reads logits from our library, then calls our kernels in this order: grammar mask, (the logits are
recorded here), logit bias, penalties, softmax with temperature, sort, top-p. Its generator of uniform
samples is seeded by the request, so the token of every step follows from what was recorded.
"""

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from browser.harness import Page, Reply
from browser_sampling_support import ACTIVE, HELLO, VOCABULARY, bias_option, page
from sampling_reference import biased, is_best, nucleus, penalised, sampled, uniforms

__all__ = ["page"]

pytestmark = pytest.mark.browser


def replied(page: Page, **options: Any) -> Reply:
    """An answer to HELLO; its logits without those of the padding, which has no probability."""
    reply = page.chat(HELLO, **options)
    assert reply.logits.shape[1] == VOCABULARY
    return replace(reply, logits=reply.logits[:, :ACTIVE])


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
