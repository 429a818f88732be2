"""Sizes from shapes, against what mlc_llm wrote and against WebLLM's own table."""

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN
from published_models import GEMMA

from engine import estimate
from engine.catalog import QUANTIZATIONS
from engine.choices import quantization_choices
from engine.embedded.spec import DecoderSpec, LayerSpec
from engine.model import facts
from engine.plan import BUILTIN_DEMO, ExportPlan

MIB = 2**20


def spec(
    vocab: int,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    **more: Any,
) -> DecoderSpec:
    return DecoderSpec(
        model_type="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        layers=(LayerSpec(rope_theta=1e4),) * layers,
        activation="silu",
        norm_eps=1e-6,
        attention_scale=1.0,
        rotary_dim=head_dim,
        **({"tie_word_embeddings": True} | more),
    )


# The published configurations of these models.
MODELS = {
    "SmolLM2-360M": spec(49152, 960, 2560, 32, 15, 5, 64),
    "SmolLM2-135M": spec(49152, 576, 1536, 30, 9, 3, 64),
    "Llama-3.2-1B": spec(128256, 2048, 8192, 16, 32, 8, 64),
    "Qwen3-0.6B": spec(151936, 1024, 3072, 28, 16, 8, 128, qk_norm="head"),
    "gemma-2-2b": spec(256000, 2304, 9216, 26, 8, 4, 256, norm_placement="sandwich"),
    "TinyLlama": spec(32000, 2048, 5632, 22, 32, 4, 64, tie_word_embeddings=False),
    "gemma-3-270m": spec(262144, 640, 2048, 18, 4, 1, 256, norm_placement="sandwich", qk_norm="head"),
}


def plan(quantization: str, context: int = 4096, prefill: int = 1024) -> ExportPlan:
    return ExportPlan(
        source=BUILTIN_DEMO,
        quantization=quantization,
        context_window_size=context,
        prefill_chunk_size=prefill,
    )


# vram_required_MB of WebLLM's prebuilt list, and what is left of it for temporary buffers.
WEBLLM_TABLE = [
    ("SmolLM2-360M", "q0f16", 4096, 871.99, 21.87),
    ("SmolLM2-360M", "q4f16_1", 4096, 376.06, 21.88),
    ("SmolLM2-360M", "q0f32", 4096, 1743.99, 43.75),
    ("SmolLM2-360M", "q4f32_1", 4096, 579.61, 43.75),
    ("SmolLM2-135M", "q0f16", 4096, 359.69, 13.12),
    ("SmolLM2-135M", "q0f32", 4096, 719.38, 26.25),
    ("Llama-3.2-1B", "q0f16", 4096, 2573.13, 88.00),
    ("Llama-3.2-1B", "q4f16_1", 4096, 879.04, 88.00),
    ("Llama-3.2-1B", "q0f32", 4096, 5106.26, 136.00),
    ("Llama-3.2-1B", "q4f32_1", 4096, 1128.82, 136.00),
    ("Qwen3-0.6B", "q0f16", 4096, 2220.38, 635.51),
    ("Qwen3-0.6B", "q4f16_1", 4096, 1403.34, 635.50),
    ("Qwen3-0.6B", "q0f32", 4096, 3843.25, 673.50),
    ("Qwen3-0.6B", "q4f32_1", 4096, 1924.98, 673.50),
    ("gemma-2-2b", "q4f16_1", 4096, 1895.30, 76.53),
    ("gemma-2-2b", "q4f16_1", 1024, 1583.30, 76.53),
    ("TinyLlama", "q4f16_1", 2048, 697.24, 63.00),
    ("TinyLlama", "q4f16_1", 1024, 675.24, 63.00),
]


@pytest.mark.parametrize(("model", "quantization", "context", "total", "temporary"), WEBLLM_TABLE)
def test_webllm_table(model: str, quantization: str, context: int, total: float, temporary: float) -> None:
    found = estimate.estimate(MODELS[model], plan(quantization, context))
    assert (found.weight_bytes + found.kv_cache_bytes) / MIB == pytest.approx(total - temporary, abs=0.02)
    assert found.temporary_bytes / MIB <= temporary + 0.02
    if model.startswith("SmolLM2"):
        assert found.vram_bytes / MIB == pytest.approx(total, abs=0.02)


@pytest.mark.parametrize(
    ("quantization", "memory", "disk"),
    [
        ("q0f16", 536_196_352, 536_196_352),
        ("q0f32", 1_072_392_704, 536_196_352),
        ("q4f16_1", 150_885_632, 150_885_632),
        ("q4f32_1", 167_750_144, 150_885_632),
    ],
)
def test_gemma_3_270m(quantization: str, memory: int, disk: int) -> None:
    found = estimate.estimate(MODELS["gemma-3-270m"], plan(quantization))
    assert found.parameter_count == 268_098_176
    assert (found.weight_bytes, found.disk_bytes) == (memory, disk)
    assert found.bits_per_parameter == pytest.approx(8 * memory / 268_098_176)
    # 4 bit weights of 270 M parameters cannot be the 70 MB some pages quote.
    assert found.disk_bytes > 134_000_000


@pytest.mark.parametrize(("context", "mebibytes"), [(2048, 36), (4096, 72), (8192, 144), (32768, 576)])
def test_kv_cache_of_gemma_3_270m(context: int, mebibytes: int) -> None:
    model = MODELS["gemma-3-270m"]
    assert estimate.estimate(model, plan("q0f16", context)).kv_cache_bytes == mebibytes * MIB
    assert estimate.estimate(model, plan("q0f32", context)).kv_cache_bytes == 2 * mebibytes * MIB


def test_the_kv_cache_comes_in_pages_and_for_each_sequence() -> None:
    model, at = MODELS["SmolLM2-135M"], plan("q0f16", 4096)
    one = estimate.estimate(model, at).kv_cache_bytes
    assert estimate.estimate(model, replace(at, context_window_size=4081)).kv_cache_bytes == one
    assert estimate.estimate(model, replace(at, context_window_size=4080)).kv_cache_bytes < one
    assert estimate.estimate(model, replace(at, max_batch_size=3)).kv_cache_bytes == 3 * one
    rolling = replace(at, context_window_size=-1, sliding_window_size=4096)
    two_pages = one * 32 // 4096
    assert estimate.estimate(model, rolling).kv_cache_bytes == one + two_pages
    three = replace(rolling, max_batch_size=3)
    assert estimate.estimate(model, three).kv_cache_bytes == 3 * (one + two_pages)


@pytest.mark.parametrize(
    ("quantization", "name", "mebibytes"),
    [
        ("q0f16", "model.embed_tokens.weight", 320),
        ("q0f32", "model.embed_tokens.weight", 640),
        ("q4f16_1", "model.embed_tokens.q_weight", 80),
    ],
)
def test_largest_buffer_of_gemma_3_270m(quantization: str, name: str, mebibytes: int) -> None:
    found = estimate.estimate(MODELS["gemma-3-270m"], plan(quantization))
    assert (found.largest_buffer_name, found.largest_buffer_bytes) == (name, mebibytes * MIB)


def test_largest_buffer_may_be_the_cache_or_an_activation() -> None:
    model = MODELS["SmolLM2-135M"]
    cache = estimate.estimate(model, plan("q4f16_1", 1_000_000))
    assert "KV cache" in cache.largest_buffer_name
    assert cache.largest_buffer_bytes == 2 * 3 * 64 * 2 * 1_000_000
    chunk = estimate.estimate(model, plan("q4f32_1", 8192, 8192))
    assert "prefill chunk" in chunk.largest_buffer_name
    assert chunk.largest_buffer_bytes == 8192 * 2 * 1536 * 4


@pytest.mark.parametrize("quantization", ["q0f16", "q0f32", "q3f16_1", "q4f16_1", "q4f32_1"])
def test_bytes_and_shards_are_those_that_mlc_llm_wrote(golden: Path, quantization: str) -> None:
    written = json.loads((golden / "expected" / quantization / "tensor-cache.json").read_text())
    found = estimate.estimate(facts.read(golden / "hf"), plan(quantization, 256, 64))
    records = [r for shard in written["records"] for r in shard["records"]]
    itemsize = {"float32": 4, "float16": 2, "uint32": 4}
    assert found.weight_bytes == written["metadata"]["ParamBytes"]
    assert found.weight_bytes == sum(prod(r["shape"]) * itemsize[r["dtype"]] for r in records)
    assert found.disk_bytes == sum(r["nbytes"] for r in records)
    assert found.shards == len(written["records"])


def test_source_and_tokenizer_count_in_memory_and_disk() -> None:
    model = facts.read(GOLDEN / "llama" / "hf")
    found = estimate.estimate(model, plan("q0f16", 256, 64))
    assert found.convert_ram_bytes == int(2.5 * model.largest_tensor_bytes) + 250_000_000
    bare = estimate.estimate(model.decoder(), plan("q0f16", 256, 64))
    assert found.disk_needed_bytes - bare.disk_needed_bytes == model.tokenizer_bytes > 0


def test_shards_of_a_90_mb_llama() -> None:
    # mlc_llm packed it as 1, 2 and 24 tensors: embedding, head and the first norm, the rest.
    large = spec(32000, 512, 1408, 4, 8, 4, 64, tie_word_embeddings=False)
    found = {q: estimate.estimate(large, plan(q)) for q in QUANTIZATIONS}
    assert {q: e.disk_bytes for q, e in found.items()} == {
        **dict.fromkeys(("q0f16", "q0bf16", "q0f32"), 89_138_176),
        **dict.fromkeys(("q4f16_0", "q4f16_1", "q4f32_1", "q4bf16_0", "q4bf16_1"), 25_076_736),
        "q4f16_2": 72_180_736,
        **dict.fromkeys(("q3f16_0", "q3f16_1"), 20_385_792),
        "q4f16_autoawq": 71_673_856,
    }
    assert {q: e.shards for q, e in found.items()} == {
        **dict.fromkeys(("q0f16", "q0bf16", "q0f32"), 3),
        **dict.fromkeys(("q4f16_0", "q4f16_1", "q4f32_1", "q4bf16_0", "q4bf16_1"), 1),
        **dict.fromkeys(("q4f16_2", "q4f16_autoawq"), 3),
        **dict.fromkeys(("q3f16_0", "q3f16_1"), 1),
    }
    assert found["q4f32_1"].weight_bytes == 27_871_232


def test_the_tensors_of_a_model_are_listed_once_for_each_quantization() -> None:
    """A screen asks for the sizes of all quantizations at every key."""
    plan = ExportPlan(source="org/model", quantization="q4f16_1")
    first = [choice.sizes for choice in quantization_choices(plan, GEMMA)]
    listed = estimate._stored.cache_info().misses
    assert [choice.sizes for choice in quantization_choices(plan, GEMMA)] == first
    assert estimate._stored.cache_info().misses == listed
    other = replace(GEMMA, parameters=GEMMA.parameters[:-1])
    assert estimate.estimate(other, plan).parameter_count < estimate.estimate(GEMMA, plan).parameter_count
