"""A library for MLC's engine holds several sequences at once, and each has the logits it would have alone.

Alone is `evaluate` on the stored weights, which knows no batches and no cache. Tolerances are fractions
of the logits' standard deviation, as in test_logits_cpu.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from exports import CHUNK, LIBRARY, QUANTIZATIONS, compiled, decoder, weights
from native_engine import Floats, NativeEngine
from sampling_reference import nucleus

from engine.embedded import evaluate

SEQUENCES = 4
TOLERANCE = 1e-4
# A window of 16 tokens and a mix of layers; softcaps; learned positions and biases.
MODELS = (("gemma3_text", "q4f32_1"), ("gemma2", "q0f32"), ("gpt2", "q0f32"))


@cache
def _library(model: str, quantization: str) -> tuple[Path, Path]:
    folder = weights(model, quantization)
    library = folder / "several" / LIBRARY["cpu"]
    compiled(folder, library, "cpu", f"max_batch_size={SEQUENCES}")
    return folder, library


@cache
def _reference(model: str, quantization: str) -> Any:
    folder, _ = _library(model, quantization)
    spec, parameters = decoder(folder)
    return spec, evaluate.stored_weights(folder, parameters, QUANTIZATIONS[quantization])


class Checked:
    """An engine whose every result is compared; it remembers what each sequence has said."""

    def __init__(self, model: str, quantization: str) -> None:
        self.spec, self.weights = _reference(model, quantization)
        self.engine = NativeEngine(*_library(model, quantization), SEQUENCES)
        self.said: dict[int, list[int]] = {}
        self._dice = np.random.default_rng(1)

    def tokens(self, count: int) -> list[int]:
        return [int(t) for t in self._dice.integers(3, self.spec.vocab_size, count)]

    def add(self, *sequences: int) -> None:
        for sequence in sequences:
            self.engine.add(sequence)
            self.said[sequence] = []

    def fork(self, parent: int, child: int, position: int = -1) -> None:
        self.engine.fork(parent, child, position)
        self.said[child] = self.said[parent][: None if position < 0 else position]

    def popn(self, sequence: int, count: int) -> None:
        self.engine.popn(sequence, count)
        self.said[sequence] = self.said[sequence][:-count]

    def remove(self, sequence: int) -> None:
        self.engine.remove(sequence)
        del self.said[sequence]

    def prefill(self, **lengths: int) -> None:
        prompts = {int(name[1:]): self.tokens(length) for name, length in lengths.items()}
        for sequence, prompt in prompts.items():
            self.said[sequence] += prompt
        self._compare(list(prompts), self.engine.prefill(prompts))

    def decode(self, *sequences: int) -> None:
        tokens = {sequence: self.tokens(1)[0] for sequence in sequences}
        for sequence, token in tokens.items():
            self.said[sequence].append(token)
        self._compare(list(tokens), self.engine.decode(tokens))

    def _compare(self, sequences: list[int], logits: Floats) -> None:
        for sequence, found in zip(sequences, logits, strict=True):
            ids = np.asarray(self.said[sequence])
            want = evaluate.logits(self.spec, self.weights, ids)[-1]
            assert np.isfinite(found).all()
            assert np.abs(found - want).max() < TOLERANCE * want.std(), (sequence, len(ids))


@pytest.fixture(params=MODELS, ids="-".join)
def checked(request: pytest.FixtureRequest) -> Checked:
    return Checked(*request.param)


def test_sequences_share_a_chunk_and_a_step(checked: Checked) -> None:
    checked.add(0, 1, 2)
    checked.prefill(s0=5, s1=23, s2=1)  # below and above the window of 16, and a single token
    for order in ((0, 1, 2), (2, 0), (1, 2), (1, 0, 2), (1,)):
        checked.decode(*order)


def test_prompts_come_in_pieces_beside_others(checked: Checked) -> None:
    """A sequence with a past, a new one, and one that continues by a single token: one chunk."""
    checked.add(0, 1)
    checked.prefill(s0=CHUNK)
    checked.prefill(s1=3, s0=19)
    checked.add(2)
    checked.prefill(s2=17, s0=1, s1=30)
    checked.decode(2, 1, 0)


def test_sequences_are_forked_shortened_and_removed(checked: Checked) -> None:
    """What a prefix cache does: every child goes on by itself, at and within pages of 16 tokens."""
    checked.add(0)
    checked.prefill(s0=37)
    checked.fork(0, 1)
    checked.fork(0, 2, 16)
    checked.fork(0, 3, 21)
    checked.decode(0, 1, 2, 3)
    checked.popn(1, 9)
    checked.popn(0, 1)
    checked.decode(3, 1, 0)
    checked.remove(0)
    checked.prefill(s2=4, s1=20)
    checked.add(5)
    checked.prefill(s5=8, s3=2)
    checked.decode(5, 2, 1, 3)


def test_pages_of_removed_sequences_are_free_again() -> None:
    checked = Checked(*MODELS[0])
    before = checked.engine.free_pages
    checked.add(0)
    checked.prefill(s0=40)
    checked.fork(0, 1, 35)
    assert checked.engine.free_pages < before
    checked.remove(1)
    checked.remove(0)
    assert checked.engine.free_pages == before


def test_a_step_of_several_makes_their_tokens() -> None:
    """From logits to tokens on the library's own functions, in the engine's order, against numpy."""
    checked = Checked(*MODELS[0])
    vm, vocab = checked.engine.vm, checked.spec.vocab_size
    active = checked.engine.metadata["active_vocab_size"]
    assert active < vocab  # the rest pads the embedding, and is never chosen
    checked.add(0, 1, 2)
    logits = checked.engine.prefill({i: checked.tokens(5 + i) for i in range(3)})
    temperatures, top_p = np.array([0.7, 0.0, 1.3], "f4"), np.array([0.9, 0.5, 1.0], "f4")

    def call(name: str, *arrays: np.ndarray) -> np.ndarray:
        return np.array(vm[name](*(tvm.runtime.tensor(a) for a in arrays)).numpy())

    probs = call("softmax_with_temperature", logits[:, None], temperatures)[:, 0]
    kept = call("renormalize_by_top_p", probs, top_p, np.zeros((3, 3), "f4"))
    rows, uniform = np.array([2, 0, 1], "i4"), np.array([0.25, 0.5, 0.75], "f4")
    tokens = call("multinomial_from_uniform", kept, uniform, rows)
    for row, share, token in zip(rows, uniform, tokens, strict=True):
        order, expected = nucleus(
            logits[row, :active], max(float(temperatures[row]), 1e-9), float(top_p[row])
        )
        distribution = np.zeros(vocab)
        distribution[order] = expected
        np.testing.assert_allclose(kept[row], distribution, rtol=1e-4, atol=1e-9)
        assert token == np.searchsorted(np.cumsum(distribution), share)


def test_memory_of_batches_is_stated() -> None:
    """With what a function returns: logits of as many rows as it may have."""
    engine = Checked(*MODELS[0]).engine
    spec, _ = _reference(*MODELS[0])
    planned, row = engine.metadata["memory_usage"], 4 * spec.vocab_size
    assert engine.metadata["max_batch_size"] == SEQUENCES
    assert planned["batch_prefill"] > planned["prefill"] > row
    assert planned["batch_decode"] >= planned["decode"] + (SEQUENCES - 1) * row
    assert planned["softmax_with_temperature"] >= SEQUENCES * row
    assert planned["alloc_embedding_tensor"] == engine.embeddings.numpy().nbytes
    assert engine.embeddings.shape == (CHUNK, spec.hidden_size)
