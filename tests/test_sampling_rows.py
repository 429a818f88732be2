"""Sampling of several sequences at once, as MLC's engine calls it: rows in any order, each with its own."""

import numpy as np
import pytest
from sampling_runs import MOST, Run, f32, i32, on_cpu, on_webgpu, softmax64

from engine.embedded.kernels.sampling import FORBIDDEN

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@pytest.fixture(params=["cpu", pytest.param("webgpu", marks=pytest.mark.browser)])
def run(request: pytest.FixtureRequest) -> Run:
    """The same kernels on the CPU and, as shaders of other GPUs have them, in WGSL."""
    if request.param == "cpu":
        return on_cpu
    return on_webgpu(request.getfixturevalue("webgpu"), several=True)


def some_logits(rows: int, size: int) -> np.ndarray:
    return (np.random.default_rng(size + rows).normal(size=(rows, size)) * 4).astype(np.float32)


def some_probs(rows: int, size: int) -> np.ndarray:
    return np.stack([softmax64(row, 1) for row in some_logits(rows, size)]).astype(np.float32)


@pytest.mark.parametrize(("rows", "size"), [(1, 384), (3, 384), (MOST, 5000)])
def test_each_row_has_its_temperature(run: Run, rows: int, size: int) -> None:
    logits = some_logits(rows, size)
    temperatures = np.linspace(0, 1.5, rows, dtype=np.float32)[::-1].copy()
    found = run(size, "softmax_with_temperature", logits[:, None].copy(), temperatures)
    assert found.shape == (rows, 1, size)
    for row, temperature, probs in zip(logits, temperatures, found[:, 0], strict=True):
        if temperature == 0:
            expected = (row == row.max()) / (row == row.max()).sum()
        else:
            expected = softmax64(row, temperature)
        np.testing.assert_allclose(probs, expected, rtol=3e-5, atol=1e-30)


def test_each_row_is_sorted(run: Run) -> None:
    values = some_probs(3, 1000)
    ordered, indices = run(1000, "argsort_probs", values.copy())
    expected = np.argsort(-values, axis=1, kind="stable")
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(ordered, np.take_along_axis(values, expected, 1))


def in_share(probs: np.ndarray, token: int, uniform: float, order: np.ndarray) -> bool:
    """Whether `uniform` falls to `token` where tokens lie one after another in `order`."""
    cumulative = np.cumsum(probs[order].astype(np.float64))
    place = int(np.flatnonzero(order == token)[0])
    before = cumulative[place] - float(probs[token])
    slack = 2e-6
    return (
        before <= uniform * cumulative[-1] + slack and cumulative[place] >= uniform * cumulative[-1] - slack
    )


SAMPLES = i32(2, 0, 2, 1, 1, 2)
UNIFORM = f32(0.3, 0.99, 0.0, 0.5, BELOW_ONE, 0.7)


@pytest.mark.parametrize("size", [1, 384, 5000])
def test_samples_name_their_rows(run: Run, size: int) -> None:
    """More samples than rows, in another order, some rows more than once."""
    probs = some_probs(3, size)
    tokens = run(size, "multinomial_from_uniform", probs.copy(), UNIFORM.copy(), SAMPLES.copy())
    assert tokens.shape == SAMPLES.shape
    assert tokens.dtype == np.int32
    for row, uniform, token in zip(SAMPLES, UNIFORM, tokens, strict=True):
        assert probs[row, token] > 0
        assert in_share(probs[row], token, uniform, np.arange(size))


def test_a_row_of_zeros_between_samples_a_token_of_the_vocabulary(run: Run) -> None:
    probs = np.zeros((2, 384), np.float32)
    probs[1, 380:] = 0.25
    tokens = run(384, "multinomial_from_uniform", probs, f32(0.5, 0.0, BELOW_ONE), i32(0, 1, 1))
    assert 0 <= tokens[0] < 384
    assert tokens[1:].tolist() == [380, 383]


def test_each_row_has_its_top_p(run: Run) -> None:
    probs = some_probs(3, 5000)
    top_p = f32(0.9, 1.0, 1e-5)
    ordered, indices = run(5000, "argsort_probs", probs.copy())
    tokens = run(5000, "sample_with_top_p", ordered, indices, UNIFORM.copy(), SAMPLES.copy(), top_p)
    for row, uniform, token in zip(SAMPLES, UNIFORM, tokens, strict=True):
        order = indices[row]
        end = np.searchsorted(np.cumsum(probs[row, order].astype(np.float64)), top_p[row] + 1e-7)
        nucleus = np.zeros_like(probs[row])
        kept = order[: end + 1] if top_p[row] < 1 else order
        nucleus[kept] = probs[row, kept]
        assert nucleus[token] > 0
        assert in_share(nucleus, token, uniform, order)
    assert tokens[[0, 2, 5]].tolist() == [int(probs[2].argmax())] * 3


@pytest.mark.parametrize("size", [1, 7, 384, 5000])
def test_renormalized_is_what_top_p_keeps(run: Run, size: int) -> None:
    probs = some_probs(4, size)
    top_p = f32(0.9, 1.0, 1e-5, 0.35)
    pivots = np.tile(f32(0.1, 0.02, 0.01), (4, 1))
    found = run(size, "renormalize_by_top_p", probs.copy(), top_p, pivots)
    for row, goal, out in zip(probs, top_p, found, strict=True):
        order = np.argsort(-row, kind="stable")
        cumulative = np.cumsum(row[order].astype(np.float64))
        reached = np.flatnonzero(cumulative >= goal) if goal < 1 else []
        last = int(reached[0]) if len(reached) else size - 1
        assert abs(cumulative[last] - goal) > 1e-6 or goal == 1, "this row would be decided by rounding"
        expected = np.where(row >= row[order[last]], row, 0).astype(np.float64)
        np.testing.assert_array_equal(out > 0, expected > 0)
        np.testing.assert_allclose(out, expected / expected.sum(), rtol=2e-6)


def test_renormalizing_keeps_all_that_are_equal(run: Run) -> None:
    probs = np.zeros((3, 384), np.float32)
    probs[0, [3, 50, 51, 300]] = 0.5, 0.125, 0.125, 0.25
    probs[1] = 1 / 384
    found = run(384, "renormalize_by_top_p", probs, f32(0.8, 1e-5, 0.5), np.zeros((3, 3), np.float32))
    np.testing.assert_allclose(found[0], probs[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], probs[1], rtol=1e-6)
    one = run(384, "renormalize_by_top_p", probs[:1], f32(0.75), np.zeros((1, 3), np.float32))
    assert np.flatnonzero(one[0]).tolist() == [3, 300]


def test_a_renormalized_row_of_one_token_stays_one(run: Run) -> None:
    """What a temperature of 0 gives."""
    probs = np.zeros((2, 384), np.float32)
    probs[[0, 1], [5, 9]] = 1
    found = run(384, "renormalize_by_top_p", probs.copy(), f32(0.95, 0.0), np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(found, probs)


@pytest.mark.parametrize("offsets", [[0, 1, 2], [2 * 384, 384 + 3, 5], [i % 1000 for i in range(700)]])
def test_probabilities_are_taken(run: Run, offsets: list[int]) -> None:
    probs = some_probs(3, 384)
    _, indices = run(384, "argsort_probs", probs.copy())
    tokens = i32(7, 0, 383, 9, 9, 100)
    given = (probs.copy(), indices, SAMPLES.copy(), tokens, np.array(offsets, np.int32))
    sampled, values, ranked = run(384, "sampler_take_probs", *given)
    np.testing.assert_array_equal(sampled, probs[SAMPLES, tokens])
    rows, ranks = np.divmod(offsets, 384)
    np.testing.assert_array_equal(ranked, indices[rows, ranks])
    np.testing.assert_array_equal(values, probs[rows, ranked])


def test_probabilities_are_taken_without_alternatives() -> None:
    """`logprobs` without `top_logprobs`."""
    probs = some_probs(2, 384)
    _, indices = on_cpu(384, "argsort_probs", probs.copy())
    given = (probs, indices, i32(1, 0), i32(3, 4), np.zeros(0, np.int32))
    sampled, values, ranked = on_cpu(384, "sampler_take_probs", *given)
    np.testing.assert_array_equal(sampled, [probs[1, 3], probs[0, 4]])
    assert values.shape == ranked.shape == (0,)


def test_biases_go_to_their_rows(run: Run) -> None:
    logits = some_logits(3, 384)
    rows, tokens, bias = i32(2, 0, 2, 0), i32(5, 5, 383, 0), f32(1, -100, 0.5, 2)
    expected = logits.copy()
    expected[rows, tokens] += bias
    run(384, "apply_logit_bias_inplace", logits, rows, tokens, bias)
    np.testing.assert_array_equal(logits, expected)


def test_penalties_go_to_their_rows(run: Run) -> None:
    """Two of four rows have penalties, which lie in another order than the rows."""
    logits = some_logits(4, 384)
    rows, which = i32(3, 1), i32(1, 0, 0, 1)
    tokens, counts = i32(7, 7, 8, 383), i32(1, 2, 3, 4)
    penalties = np.array([[0.5, 0.25, 1.5], [-1, 0.5, 0.5]], np.float32)
    expected = logits.astype(np.float64)
    for place, token, count in zip(which, tokens, counts, strict=True):
        presence, frequency, repetition = penalties[place].astype(np.float64)
        lowered = expected[rows[place], token] - (presence + count * frequency)
        expected[rows[place], token] = lowered * repetition if lowered < 0 else lowered / repetition
    before = logits.copy()
    run(384, "apply_penalty_inplace", logits, rows, which, tokens, counts, penalties)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    changed = np.zeros((4, 384), bool)
    changed[rows[which], tokens] = True
    np.testing.assert_array_equal(logits[~changed], before[~changed])
    np.testing.assert_array_equal(logits[[0, 2]], before[[0, 2]])


def test_a_new_sequence_has_nothing_to_be_penalized() -> None:
    """MLC's engine calls it all the same, with no entry."""
    logits, none = some_logits(2, 384), np.zeros(0, np.int32)
    before = logits.copy()
    on_cpu(384, "apply_penalty_inplace", logits, i32(1), none, none, none, f32(1, 1, 2)[None])
    np.testing.assert_array_equal(logits, before)


def test_masks_are_those_of_their_rows(run: Run) -> None:
    """Two of four rows are masked; the mask of a row lies where its logits do."""
    logits = some_logits(4, 1000)
    mask = np.random.default_rng(5).integers(-(2**31), 2**31, (4, 32)).astype(np.int32)
    bits = np.unpackbits(mask.view(np.uint8), axis=1, bitorder="little")[:, :1000]
    expected = logits.copy()
    for row in (3, 1):
        expected[row, bits[row] == 0] = FORBIDDEN
    run(1000, "apply_bitmask_inplace", logits, i32(3, 1), mask)
    np.testing.assert_array_equal(logits, expected)
