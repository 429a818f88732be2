"""What WebLLM 0.2.86 and mlc_llm do between logits and a token, in double precision."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def uniforms(seed: int) -> Iterator[float]:
    """WebLLM's uniform samples: Park and Miller's generator with the multiplier 48271, as float32."""
    modulus = 2**31 - 1
    state = seed
    while True:
        state = 48271 * state % modulus
        yield float(np.float32(state / modulus))


def nucleus(logits: Floats, temperature: float, top_p: float) -> tuple[NDArray[np.intp], Floats]:
    """The shortest row of most probable tokens that reaches top_p, and their distribution."""
    scaled = np.asarray(logits, np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order]) / weights.sum()
    size = min(int(np.searchsorted(cumulative, top_p)) + 1, len(order))
    kept = weights[order[:size]]
    return order[:size], kept / kept.sum()


def sampled(logits: Floats, temperature: float, top_p: float, uniform: float) -> set[int]:
    """The token that `uniform` selects; both neighbours of a border nearer than float32 can tell."""
    close = (-2e-6, 0, 2e-6)
    found = set()
    for threshold in (top_p + near for near in close):
        tokens, probabilities = nucleus(logits, temperature, threshold)
        places = np.searchsorted(np.cumsum(probabilities), [uniform + near for near in close], side="right")
        found |= set(tokens[np.minimum(places, len(tokens) - 1)].tolist())
    return found


def biased(logits: Floats, bias: Mapping[int, float]) -> Floats:
    out = np.asarray(logits, np.float64).copy()
    for token, value in bias.items():
        out[token] += value
    return out


def penalised(
    logits: Floats,
    seen: Sequence[int],
    *,
    repetition_penalty: float = 1,
    presence_penalty: float = 0,
    frequency_penalty: float = 0,
) -> Floats:
    """The definitions of OpenAI (presence, frequency) and then of CTRL (repetition) on tokens generated."""
    out = np.asarray(logits, np.float64).copy()
    for token, count in Counter(seen).items():
        logit = out[token] - presence_penalty - count * frequency_penalty
        out[token] = logit * repetition_penalty if logit < 0 else logit / repetition_penalty
    return out


def is_best(logits: Floats, token: int) -> bool:
    """Whether no logit is above that of `token` by more than float32 rounds."""
    return bool(logits[token] >= logits.max() - 1e-6)
