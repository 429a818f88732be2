"""Advice: when each rule speaks, what it offers, and that taking the offer settles it."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from published_models import GEMMA, LLAMA_1B, SMOL, TINY_LLAMA, model

from engine import disk
from engine.advice import Advice, advise
from engine.catalog import QUANTIZATIONS, TARGETS
from engine.errors import UsageError
from engine.machine import Machine, inspect
from engine.model import facts as model_facts
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, ExportPlan

ROOMY = Machine(ram_total=2**40, ram_available=2**40, disk_free=2**50)


def plan(quantization: str, **changes: Any) -> ExportPlan:
    return ExportPlan(source="org/model", quantization=quantization, **changes)


def given_advice(
    plan: ExportPlan, facts: ModelFacts | None, machine: Machine | None = ROOMY
) -> dict[str, Advice]:
    found = advise(plan, facts, machine)
    assert len({a.code for a in found}) == len(found)
    return {a.code: a for a in found}


def test_a_good_choice_draws_no_advice() -> None:
    assert given_advice(plan("q4f32_1", prefill_chunk_size=1024), TINY_LLAMA) == {}


def test_functiongemma_as_the_preset_has_it() -> None:
    chosen = plan("q0f16", context_window_size=4096, prefill_chunk_size=512)
    found = given_advice(chosen, GEMMA)
    assert set(found) == {"f16-range", "shader-f16", "buffer-not-portable"}
    assert found["f16-range"].severity == "note"
    assert found["f16-range"].better is None
    assert "65504" in found["f16-range"].message
    assert found["shader-f16"].better == {"quantization": "q0f32"}
    assert "GTX 16" in found["shader-f16"].message
    assert "320 MiB" in found["buffer-not-portable"].message


@pytest.mark.parametrize(
    ("facts", "mode", "better"),
    [
        (GEMMA, "q4f16_1", "q0f16"),
        (GEMMA, "q4f32_1", "q0f32"),
        (SMOL, "q4f16_1", "q0f16"),
        (SMOL, "q4f32_1", "q0f32"),
    ],
)
def test_four_bits_below_a_billion(facts: ModelFacts, mode: str, better: str) -> None:
    advice = given_advice(plan(mode), facts)["q4-small-model"]
    assert (advice.severity, advice.better) == ("warning", {"quantization": better})
    assert "stop tokens" in advice.message


def test_the_numbers_are_those_of_the_shapes() -> None:
    message = given_advice(plan("q4f16_1"), GEMMA)["q4-small-model"].message
    assert "268.1 M parameters" in message
    assert "536 MB to download instead of 151 MB" in message


def test_the_demo_was_trained_for_four_bits() -> None:
    assert "q4-small-model" not in given_advice(replace(plan("q4f32_1"), source=BUILTIN_DEMO), GEMMA)


@pytest.mark.parametrize("mode", ["q4f16_1", "q4f32_1"])
def test_four_bits_from_a_billion_up(mode: str) -> None:
    found = given_advice(plan(mode), LLAMA_1B)
    assert "q4-small-model" not in found
    assert (found["q4-tied-embedding"].severity, found["q4-tied-embedding"].better) == ("note", None)
    assert "q4-tied-embedding" not in given_advice(plan(mode), TINY_LLAMA)


def test_mlc_llm_computes_gemma_in_f16() -> None:
    """Large ones stay quantized, small ones do not."""
    small = model("gemma3_text", 262144, 1152, 6912, 26, 4, 1, 256, window=512)
    advice = given_advice(plan("q4f16_1", backend="mlc_llm"), small)["f16-range"]
    assert small.parameter_count < 1e9  # 1B in name
    assert (advice.severity, advice.better) == ("warning", {"quantization": "q0f32"})
    larger = model("gemma3_text", 262208, 2560, 10240, 34, 8, 4, 256, window=1024)
    advice = given_advice(plan("q4f16_1", backend="mlc_llm"), larger)["f16-range"]
    assert advice.better == {"quantization": "q4f32_1"}


def test_f16_matters_to_browsers_only_where_it_is_used() -> None:
    assert given_advice(plan("q0f16"), SMOL)["shader-f16"].better == {"quantization": "q0f32"}
    assert "shader-f16" not in given_advice(plan("q0f32"), SMOL)
    assert "shader-f16" not in given_advice(plan("q0f16", device="cuda"), SMOL)


def test_prefill_above_the_window() -> None:
    own = given_advice(plan("q0f32"), GEMMA)["prefill-above-window"]
    assert (own.severity, own.better) == ("note", {"prefill_chunk_size": 512})
    assert "1,024 tokens" in own.message
    official = given_advice(plan("q0f32", backend="mlc_llm"), GEMMA)["prefill-above-window"]
    assert official.severity == "warning"
    assert "prefill-above-window" not in given_advice(plan("q0f32", prefill_chunk_size=512), GEMMA)


def test_prefill_above_the_window_of_a_tiny_model_gains_nothing() -> None:
    tiny = model_facts.read(GOLDEN / "gemma3_text" / "hf")
    chunk = {"context_window_size": 512, "prefill_chunk_size": 256}
    assert "prefill-above-window" not in given_advice(plan("q4f32_1", **chunk), tiny)
    assert "prefill-above-window" in given_advice(plan("q4f32_1", **chunk, backend="mlc_llm"), tiny)


def test_prefill_above_the_context() -> None:
    chosen = plan("q0f32", context_window_size=256, prefill_chunk_size=512)
    assert given_advice(chosen, SMOL)["prefill-above-context"].better == {"prefill_chunk_size": 256}


def test_context_above_the_model() -> None:
    advice = given_advice(plan("q0f32", context_window_size=16384), SMOL)["context-above-model"]
    assert advice.severity == "warning"
    assert advice.better == {"context_window_size": 8192, "prefill_chunk_size": 1024}
    assert "16,384" in advice.message
    assert "8,192" in advice.message


def test_a_rolling_cache_above_the_model() -> None:
    advice = given_advice(plan("q0f32", sliding_window_size=16384), SMOL)["rolling-above-model"]
    assert advice.better == {"sliding_window_size": 8192, "prefill_chunk_size": 1024}
    assert "16,384" in advice.message


def test_a_rolling_cache_takes_the_place_of_the_models_windows() -> None:
    chunk = {"prefill_chunk_size": 1024, "backend": "mlc_llm"}
    assert "prefill-above-window" in given_advice(plan("q4f32_1", **chunk), GEMMA)
    assert "prefill-above-window" not in given_advice(
        plan("q4f32_1", **chunk, sliding_window_size=2048), GEMMA
    )


def test_both_windows() -> None:
    both = plan("q0f32", context_window_size=4096, sliding_window_size=1024)
    assert given_advice(both, SMOL)["both-windows"].better == {"sliding_window_size": -1}
    assert "both-windows" not in given_advice(plan("q0f32", sliding_window_size=1024), SMOL)
    assert "both-windows" not in given_advice(plan("q0f32", sliding_window_size=-1), SMOL)


def test_buffers() -> None:
    assert "buffer-not-portable" not in given_advice(plan("q4f16_1"), GEMMA)  # 80 MiB
    assert "640 MiB" in given_advice(plan("q0f32"), GEMMA)["buffer-not-portable"].message
    assert "buffer-not-portable" not in given_advice(plan("q0f32", device="cpu"), GEMMA)
    large = model("llama", 256000, 2304, 9216, 26, 8, 4, 256)  # an embedding of 2.2 GiB in f32
    advice = given_advice(plan("q0f32"), large)["buffer-too-large"]
    assert (advice.severity, advice.better) == ("warning", {"quantization": "q4f32_1"})


def test_a_cache_too_large_to_bind() -> None:
    chosen = plan("q4f32_1", context_window_size=1_000_000)
    wide = model("llama", 32000, 2048, 5632, 22, 32, 32, 64, context=2_000_000)
    advice = given_advice(chosen, wide)["buffer-too-large"]
    assert "KV cache" in advice.message
    assert advice.better == {"context_window_size": 4096, "prefill_chunk_size": 1024}


def test_one_device_one_conversation() -> None:
    found = given_advice(plan("q0f32", max_batch_size=8, tensor_parallel_shards=2), SMOL)
    assert found["batch"].better == {"max_batch_size": 1}
    assert found["tensor-parallel"].better == {"tensor_parallel_shards": 1}
    server = given_advice(plan("q0f32", device="cuda", max_batch_size=8, tensor_parallel_shards=2), SMOL)
    assert not {"batch", "tensor-parallel"} & set(server)


def test_no_chat_template() -> None:
    bare = replace(SMOL, has_chat_template=False)
    assert given_advice(plan("q0f32"), bare)["no-chat-template"].better == {"conv_template": "none"}
    assert "no-chat-template" not in given_advice(plan("q0f32", conv_template="llama-3"), bare)


def test_disk_and_memory() -> None:
    poor = Machine(ram_total=2**30, ram_available=10**8, disk_free=10**8)
    found = given_advice(plan("q0f16", output=Path("somewhere")), GEMMA, poor)
    assert "553 MB" in found["disk"].message
    assert "somewhere has 100 MB free" in found["disk"].message
    assert "1.1 GB" in found["ram"].message
    assert not {"disk", "ram"} & set(given_advice(plan("q0f16"), GEMMA, None))


def test_this_machine(tmp_path: Path) -> None:
    found = inspect(tmp_path / "not" / "made" / "yet")
    assert 0 < found.ram_available <= found.ram_total
    assert disk.free(tmp_path) > 0


def test_a_model_that_is_not_here_yet_draws_what_the_plan_tells() -> None:
    chosen = plan(
        "q0f16",
        context_window_size=256,
        prefill_chunk_size=512,
        sliding_window_size=64,
        tensor_parallel_shards=2,
    )
    codes = {"shader-f16", "prefill-above-context", "both-windows", "tensor-parallel"}
    assert set(given_advice(chosen, None)) == codes
    assert given_advice(chosen, None)["shader-f16"].better is None
    unknown = replace(GEMMA, spec=None, parameters=(), unsupported=UsageError("not known"))
    assert set(given_advice(chosen, unknown)) == codes


def test_real_facts_draw_advice_too(golden: Path) -> None:
    found = given_advice(plan("q4f32_1"), model_facts.read(golden / "hf"))
    assert found["q4-small-model"].better == {"quantization": "q0f32"}


SIZES = st.none() | st.integers(1, 200_000)


@given(
    facts=st.sampled_from([GEMMA, SMOL, LLAMA_1B, TINY_LLAMA, replace(SMOL, has_chat_template=False)]),
    chosen=st.builds(
        ExportPlan,
        source=st.just("org/model"),
        quantization=st.sampled_from(list(QUANTIZATIONS)),
        device=st.sampled_from(list(TARGETS)),
        backend=st.sampled_from(["auto", "mlc_llm"]),
        context_window_size=SIZES,
        prefill_chunk_size=SIZES,
        sliding_window_size=SIZES | st.just(-1),
        max_batch_size=st.integers(1, 8),
        tensor_parallel_shards=st.integers(1, 2),
    ),
)
def test_taking_advice_settles_it(facts: ModelFacts, chosen: ExportPlan) -> None:
    names = {f.name for f in fields(ExportPlan)}
    for advice in given_advice(chosen, facts).values():
        assert advice.message
        assert "\n" not in advice.message
        if advice.better is not None:
            assert set(advice.better) <= names
            better = advice.taken(chosen)
            assert better != chosen
            assert advice.code not in given_advice(better, facts)
    for _ in range(20):  # and taking all of it, one at a time, comes to an end
        offers = [a for a in given_advice(chosen, facts).values() if a.better is not None]
        if not offers:
            break
        chosen = offers[0].taken(chosen)
    else:
        pytest.fail(f"advice goes in circles: {offers}")
