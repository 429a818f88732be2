"""Sampling on the CPU and in a real WebGPU, against numpy in double precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sampling_runs import Run, f32, i32, on_cpu, on_webgpu, sampling_module, softmax64
from webgpu_kernels.device import WebGPU

from engine.embedded.kernels.sampling import FORBIDDEN


@pytest.fixture(params=["cpu", pytest.param("webgpu", marks=pytest.mark.browser)])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "cpu":
        return on_cpu
    return on_webgpu(request.getfixturevalue("webgpu"))


# argsort


def check_argsort(run: Run, values: np.ndarray) -> None:
    ordered, indices = run(values.size, "argsort_probs", values.reshape(1, -1).copy())
    expected = np.argsort(-values.astype(np.float64), kind="stable")
    np.testing.assert_array_equal(indices[0], expected)
    np.testing.assert_array_equal(ordered[0].view(np.uint32), values[expected].view(np.uint32))


def many_values(size: int) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(size)
    probabilities = np.exp(dice.normal(size=size) * 8)
    return {
        "softmax": (probabilities / probabilities.sum()).astype(np.float32),
        "ties": dice.integers(0, 4, size).astype(np.float32) / 4,
        "zeros": np.zeros(size, np.float32),
        "rising": np.arange(size, dtype=np.float32),
        "falling": -np.arange(1, size + 1, dtype=np.float32),
        "subnormal": (dice.integers(0, 9, size) * np.float32(1e-45)).astype(np.float32),
        "extreme": dice.choice(f32(np.inf, -np.inf, 3.4e38, -3.4e38, 1.0, 1e-40), size),
    }


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 384, 1000, 4097])
def test_argsort_of_every_size(size: int) -> None:
    for values in many_values(size).values():
        check_argsort(on_cpu, values)


@pytest.mark.parametrize("size", [32_000, 262_144, 262_145])
def test_argsort_of_large_vocabularies(size: int) -> None:
    for kind in ("softmax", "ties", "rising"):
        check_argsort(on_cpu, many_values(size)[kind])


@pytest.mark.browser
@pytest.mark.parametrize("size", [1, 65, 384, 1000, 32_003])
def test_argsort_in_webgpu(webgpu: WebGPU, size: int) -> None:
    run = on_webgpu(webgpu)
    kinds = many_values(size)
    for kind in kinds if size < 1000 else ("softmax", "ties"):
        check_argsort(run, kinds[kind])


@given(arrays.arrays(np.float32, 333, elements=st.floats(width=32, allow_nan=False)))
@settings(max_examples=150, deadline=None)
def test_argsort_of_anything(values: np.ndarray) -> None:
    check_argsort(on_cpu, np.where(values == 0, np.float32(0), values))  # -0 is below +0 here, equal in numpy


def test_argsort_keeps_every_element_among_nans(run: Run) -> None:
    values = many_values(384)["softmax"]
    values[::7] = np.nan
    ordered, indices = run(384, "argsort_probs", values.reshape(1, -1))
    assert sorted(indices[0]) == list(range(384))
    numbers = ordered[0][~np.isnan(ordered[0])]
    assert (np.diff(numbers) <= 0).all()


# softmax

EXTREMES = {
    "usual": lambda x: x,
    "masked": lambda x: np.where(np.arange(x.size) % 3 == 0, x, np.float32(FORBIDDEN)),
    "infinities": lambda x: np.where(np.arange(x.size) % 3 == 0, x, np.float32(-np.inf)),
    "huge": lambda x: (x * np.float32(1e30)).astype(np.float32),
    "one": lambda x: np.where(np.arange(x.size) == x.size // 2, np.float32(0), np.float32(-np.inf)),
    "equal": lambda x: np.full_like(x, -1e30),
}


def check_softmax(run: Run, logits: np.ndarray, temperature: float) -> None:
    found = run(
        logits.size, "softmax_with_temperature", logits.reshape(1, 1, -1).copy(), f32(temperature)
    ).ravel()
    expected = softmax64(logits, temperature)
    assert np.isfinite(found).all()
    assert abs(found.astype(np.float64).sum() - 1) < 2e-6
    # WGSL lets exp(-x) be off by 3 + 2|x| ulp: 1e-5 at the smallest weights.
    large = expected > 1e-30
    np.testing.assert_allclose(found[large], expected[large], rtol=3e-5)
    assert (found[~large] <= 1.1e-30).all()
    assert (found[expected == 0] == 0).all()


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("temperature", [1e-6, 0.7, 1.0, 20.0])
def test_softmax_is_right_at_every_temperature(run: Run, kind: str, temperature: float) -> None:
    logits = (np.random.default_rng(1).normal(size=5000) * 4).astype(np.float32)
    check_softmax(run, EXTREMES[kind](logits), temperature)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 384, 4096, 4097, 32_000, 262_144])
def test_softmax_of_every_size(size: int) -> None:
    check_softmax(on_cpu, (np.random.default_rng(size).normal(size=size) * 4).astype(np.float32), 0.9)


@pytest.mark.browser
@pytest.mark.parametrize("size", [1, 384, 32_003])
def test_softmax_in_webgpu(webgpu: WebGPU, size: int) -> None:
    logits = (np.random.default_rng(size).normal(size=size) * 4).astype(np.float32)
    check_softmax(on_webgpu(webgpu), logits, 0.9)


def test_softmax_at_the_lowest_temperature_is_greedy(run: Run) -> None:
    logits = (np.random.default_rng(2).normal(size=384) * 4).astype(np.float32)
    found = run(384, "softmax_with_temperature", logits.reshape(1, 1, -1), f32(1e-6)).ravel()
    np.testing.assert_array_equal(found, np.eye(384, dtype=np.float32)[logits.argmax()])


def test_a_temperature_of_0_shares_between_the_largest(run: Run) -> None:
    """And gives nothing to one that is smaller by a single unit in the last place."""
    logits = (np.random.default_rng(3).normal(size=384) * 4).astype(np.float32)
    logits[[7, 300]] = logits.max() + 1
    logits[8] = np.nextafter(logits[7], np.float32(-np.inf))
    found = run(384, "softmax_with_temperature", logits.reshape(1, 1, -1), f32(0)).ravel()
    expected = np.zeros(384, np.float32)
    expected[[7, 300]] = 0.5
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("size", "active"), [(384, 300), (5000, 4096), (9000, 4097)])
def test_padding_of_the_vocabulary_has_no_probability(run: Run, size: int, active: int) -> None:
    logits = (np.random.default_rng(size).normal(size=size) * 4).astype(np.float32)
    logits[active:] += 50
    found = run(
        size, "softmax_with_temperature", logits.reshape(1, 1, -1).copy(), f32(0.7), active=active
    ).ravel()
    assert (found[active:] == 0).all()
    np.testing.assert_allclose(found[:active], softmax64(logits[:active], 0.7), rtol=3e-5, atol=1e-30)


# sampling

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def sample(run: Run, probs: np.ndarray, uniform: float, top_p: float) -> int:
    """The place in the sorted row that is picked: the token ids given are 7 more than the places."""
    size = probs.size
    ids = np.arange(size, dtype=np.int32).reshape(1, -1) + 7
    token = run(size, "sample_with_top_p", probs.reshape(1, -1).copy(), ids, f32(uniform), i32(0), f32(top_p))
    assert token.shape == (1,)
    assert token.dtype == np.int32
    return int(token[0]) - 7


def check_sample(run: Run, probs: np.ndarray, uniform: float, top_p: float, slack: float) -> None:
    """The place is one whose share of the nucleus holds `uniform`, within `slack` for rounded sums."""
    place = sample(run, probs, uniform, top_p)
    cumulative = np.cumsum(probs.astype(np.float64))
    total = cumulative[-1]
    goal = float(np.float32(top_p))
    assert 0 <= place < probs.size
    assert probs[place] > 0
    before = cumulative[place] - float(probs[place])
    low = high = total
    if top_p < 1:
        assert before <= goal + slack  # in the nucleus: what comes before it does not reach top_p
        low = cumulative[np.flatnonzero(cumulative >= goal - slack)[0]]
        reached = np.flatnonzero(cumulative >= goal + slack)
        high = cumulative[reached[0]] if reached.size else total
    share = min(float(np.float32(uniform)), 1.0)
    assert before / high <= share + slack
    assert cumulative[place] / low >= share - slack


UNIFORMS = (0.0, 1e-30, 0.1, 0.25, 0.5, 0.777, 0.999, BELOW_ONE, 1.0)
TOP_PS = (1e-5, 0.1, 0.5, 0.9, 0.95, 0.999, 1.0)


@pytest.mark.parametrize("size", [1, 5, 384, 4096, 5000, 262_144])
def test_samples_follow_the_cumulative_distribution(size: int) -> None:
    dice = np.random.default_rng(size)
    for spread in (0.1, 3.0):
        weights = np.sort(np.exp(dice.normal(size=size) * spread))[::-1]
        probs = (weights / weights.sum()).astype(np.float32)
        for top_p in TOP_PS:
            for uniform in UNIFORMS:
                check_sample(on_cpu, probs, uniform, top_p, 5e-6)


@pytest.mark.browser
def test_samples_follow_the_cumulative_distribution_in_webgpu(webgpu: WebGPU) -> None:
    for size in (1, 384, 5000):
        weights = np.sort(np.exp(np.random.default_rng(size).normal(size=size)))[::-1]
        probs = (weights / weights.sum()).astype(np.float32)
        for top_p in (1e-5, 0.9, 1.0):
            for uniform in (0.0, 0.3, 0.97, BELOW_ONE, 1.0):
                check_sample(on_webgpu(webgpu), probs, uniform, top_p, 5e-6)


def exact(probs: np.ndarray, uniform: float, top_p: float) -> int:
    """The definition, on probabilities whose sums are exact in float32."""
    cumulative = np.cumsum(probs.astype(np.float64))
    reached = np.flatnonzero(cumulative >= float(np.float32(top_p)))
    end = int(reached[0]) if top_p < 1 and reached.size else probs.size - 1
    return int(np.flatnonzero(cumulative > uniform * cumulative[end])[0])


@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=50).filter(any),
    st.integers(0, 1023),
    st.sampled_from([1 / 64, 0.25, 0.5, 0.75, 63 / 64, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_samples_of_exact_sums_are_exact(counts: list[int], step: int, top_p: float) -> None:
    """Counts over their power of two, and a uniform halfway between two steps: nothing rounds."""
    weights = np.sort(np.array(counts + [0] * (50 - len(counts)), np.float64))[::-1]
    probs = (weights / 2 ** int(np.ceil(np.log2(weights.sum())))).astype(np.float32)
    uniform = (step + 0.5) / 1024
    assert sample(on_cpu, probs, uniform, top_p) == exact(probs, uniform, top_p)


def test_the_nucleus_ends_where_top_p_is_reached(run: Run) -> None:
    probs = f32(0.5, 0.25, 0.125, 0.125)
    assert [sample(run, probs, u, 0.75) for u in (0.0, 0.66, 0.67, BELOW_ONE)] == [0, 0, 1, 1]
    assert [sample(run, probs, BELOW_ONE, top_p) for top_p in (0.5, 0.51, 0.76, 0.9, 1.0)] == [0, 1, 2, 3, 3]


def test_a_token_without_probability_is_never_picked(run: Run) -> None:
    probs = np.zeros(384, np.float32)
    probs[:3] = 0.7, 0.2, 0.1
    for uniform in (0.0, 0.95, BELOW_ONE, 1.0):
        assert sample(run, probs, uniform, 1.0) < 3
    assert sample(run, np.zeros(384, np.float32), 0.5, 0.9) == 0


# logits


def some_logits(size: int) -> np.ndarray:
    return (np.random.default_rng(size).normal(size=(1, size)) * 5).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3, 257])
def test_logit_bias_is_added(run: Run, count: int) -> None:
    logits, dice = some_logits(1000), np.random.default_rng(count)
    tokens = dice.permutation(1000)[:count].astype(np.int32)
    bias = (dice.normal(size=count) * 100).astype(np.float32)
    expected = logits.copy()
    expected[0, tokens] += bias
    result = run(1000, "apply_logit_bias_inplace", logits, np.zeros(count, np.int32), tokens, bias)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(result, expected)


def test_a_token_outside_the_vocabulary_changes_nothing(run: Run) -> None:
    logits = some_logits(384)
    before = logits.copy()
    tokens = i32(-1, 384, 2**30)
    run(384, "apply_logit_bias_inplace", logits, np.zeros(3, np.int32), tokens, f32(1, 1, 1))
    np.testing.assert_array_equal(logits, before)
    run(
        384,
        "apply_penalty_inplace",
        logits,
        i32(0),
        np.zeros(3, np.int32),
        tokens,
        i32(1, 1, 1),
        f32(1, 1, 2)[None],
    )
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("penalties", [(0.5, 0.0, 1.0), (0.0, 0.3, 1.0), (0.0, 0.0, 1.3), (-1.0, 0.7, 0.8)])
def test_penalties_lower_what_was_said(run: Run, penalties: tuple[float, float, float]) -> None:
    logits, dice = some_logits(1000), np.random.default_rng(3)
    tokens = dice.permutation(1000)[:300].astype(np.int32)
    counts = dice.integers(1, 9, 300).astype(np.int32)
    presence, frequency, repetition = (np.float64(np.float32(p)) for p in penalties)
    expected = logits.astype(np.float64)
    lowered = expected[0, tokens] - (presence + counts * frequency)
    expected[0, tokens] = np.where(lowered < 0, lowered * repetition, lowered / repetition)
    before = logits.copy()
    run(
        1000,
        "apply_penalty_inplace",
        logits,
        i32(0),
        np.zeros(300, np.int32),
        tokens,
        counts,
        f32(*penalties)[None],
    )
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    others = np.setdiff1d(np.arange(1000), tokens)
    np.testing.assert_array_equal(logits[0, others], before[0, others])


@pytest.mark.parametrize("size", [1, 31, 32, 33, 384, 1000])
def test_bitmask_forbids_what_its_bits_do_not_allow(run: Run, size: int) -> None:
    logits = some_logits(size)
    mask = np.random.default_rng(size).integers(-(2**31), 2**31, -(-size // 32)).astype(np.int32)
    allowed = (mask.view(np.uint32)[np.arange(size) // 32] >> (np.arange(size) % 32).astype(np.uint32)) & 1
    expected = np.where(allowed[None] == 1, logits, np.float32(FORBIDDEN))
    run(size, "apply_bitmask_inplace", logits, i32(0), mask[None])
    np.testing.assert_array_equal(logits, expected)
    assert np.float32(FORBIDDEN) == np.finfo(np.float32).min


@pytest.mark.parametrize("temperature", [1e-6, 1.5])
def test_a_forbidden_token_is_never_sampled(run: Run, temperature: float) -> None:
    """All steps in the order WebLLM takes them, with a bias and a penalty that push towards it."""
    size, allowed = 384, (5, 40, 383)
    logits = some_logits(size)
    mask = np.zeros(12, np.uint32)
    for token in allowed:
        mask[token // 32] |= np.uint32(1 << token % 32)
    run(size, "apply_bitmask_inplace", logits, i32(0), mask.view(np.int32)[None])
    run(size, "apply_logit_bias_inplace", logits, i32(0), i32(6), f32(100))
    run(size, "apply_penalty_inplace", logits, i32(0), i32(0), i32(7), i32(3), f32(-2, -2, 2.0)[None])
    probs = run(size, "softmax_with_temperature", logits.reshape(1, 1, size), f32(temperature))
    ordered, indices = run(size, "argsort_probs", probs.reshape(1, size))
    for uniform in (0.0, 0.5, BELOW_ONE, 1.0):
        token = run(size, "sample_with_top_p", ordered, indices, f32(uniform), i32(0), f32(1.0))
        assert int(token[0]) in allowed


# what a device must offer


@pytest.mark.browser
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("size", [384, 262_144])
def test_kernels_stay_within_the_limits_of_webgpu(webgpu: WebGPU, size: int, several: bool) -> None:
    """Those for several rows keep to them as well: every GPU offers that much."""
    kernels = webgpu.kernels_of(sampling_module(size, True, several=several))
    assert len(kernels) == (12 if several else 9)
    for kernel in kernels.values():
        assert np.prod(kernel.workgroup) <= 256
        assert kernel.shared_bytes <= 32768
        assert len(kernel.writes) <= 10
        assert "blockIdx.z" not in kernel.launch_tags
        assert not {"i64", "u64", "f64", "f16"} & set(kernel.wgsl.replace("<", " ").replace(">", " ").split())
        assert "shader-f16" not in kernel.wgsl
        assert several or len(kernel.wgsl) < 6000  # a page compiles what it loads
