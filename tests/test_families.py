"""What each family is: the parts that matter, what reaches the compiler, and what is refused."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from math import log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FAMILIES as MODELS
from conftest import GOLDEN
from family_support import Config, config_of, decoder
from safetensors.numpy import load_file

from engine.backends.embedded import EmbeddedBackend
from engine.embedded import evaluate
from engine.embedded.families.registry import FAMILIES, MLC_LLM_ONLY, family_of
from engine.embedded.gen_config import generate
from engine.embedded.locate import located
from engine.embedded.sizes import Sizes
from engine.embedded.spec import DecoderSpec, RollingCache
from engine.errors import UsageError
from engine.estimate import estimate
from engine.model import facts
from engine.model.tensors import open_tensors
from engine.plan import ExportPlan, with_defaults


def test_every_family_has_a_golden_model() -> None:
    assert {config_of(name)["model_type"] for name in MODELS} == set(FAMILIES)
    assert {path.name for path in GOLDEN.iterdir()} == set(MODELS)


def without(spec: DecoderSpec, **changes: Any) -> DecoderSpec:
    return dataclasses.replace(spec, **changes)


def of_layers(spec: DecoderSpec, **changes: Any) -> DecoderSpec:
    layers = tuple(dataclasses.replace(layer, **changes) for layer in spec.layers)
    return dataclasses.replace(spec, layers=layers)


# A part of a spec, where a family has it, and the same decoder without.
PARTS: dict[str, Callable[[DecoderSpec], DecoderSpec]] = {
    "window": lambda spec: of_layers(spec, window=None),
    "rope theta": lambda spec: of_layers(spec, rope_theta=500.0) if spec.rotary_dim else spec,
    "partial rotary": lambda spec: without(spec, rotary_dim=spec.head_dim) if spec.rotary_dim else spec,
    "learned positions": lambda spec: without(spec, position_embeddings="rope"),
    "attention softcap": lambda spec: without(spec, attention_softcap=None),
    "logit softcap": lambda spec: without(spec, logit_softcap=None),
    "qk norm": lambda spec: without(spec, qk_norm=None),
    # From one norm of the same x, side by side and one after the other are the same.
    "parallel residual": lambda spec: without(spec, parallel_residual=spec.shared_norm),
    "embedding scale": lambda spec: without(spec, embedding_scale=1.0),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_part_moves_the_logits(name: str) -> None:
    spec, parameters = decoder(name)
    tensors = open_tensors(GOLDEN / name / "hf")
    source = evaluate.SourceWeights(located(parameters, tensors), tensors.read)
    weights = {parameter.role: source[parameter.role][:] for parameter in parameters}
    reference = load_file(GOLDEN / name / "reference.safetensors")

    def moved(spec: DecoderSpec, weights: evaluate.Weights) -> float:
        ours = evaluate.logits(spec, weights, reference["input_ids"])
        return float(np.abs(ours - reference["logits"]).max() / reference["logits"].std())

    assert moved(spec, weights) < 5e-5
    for part, change in PARTS.items():
        if (other := change(spec)) != spec:
            assert moved(other, weights) > 0.05, part
    for end in ("attention_out", "down", *{p.role.split(".", 2)[-1] for p in parameters if p.kind == "bias"}):
        emptied = {role: w * 0 if role.endswith(end) else w for role, w in weights.items()}
        assert moved(spec, emptied) > 0.05, end


# What mlc_llm writes for the families that no golden file of its own shows.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "gpt2",
            {
                "vocab_size": 384,
                "n_embd": 64,
                "n_layer": 2,
                "n_head": 2,
                "layer_norm_epsilon": 1e-5,
                "n_inner": 256,
                "context_window_size": 128,
                "prefill_chunk_size": 64,
                "scale_attn_by_inverse_layer_idx": False,
                "tensor_parallel_shards": 1,
                "head_dim": 32,
                "max_batch_size": 1,
                "n_positions": 256,  # ours: a table of that length, whatever the context
            },
        ),
        (
            "phi",
            {
                "vocab_size": 384,
                "hidden_size": 64,
                "intermediate_size": 160,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "layer_norm_eps": 1e-5,
                "position_embedding_base": 10000.0,
                "partial_rotary_factor": 0.5,
                "num_key_value_heads": 1,
                "context_window_size": 128,
                "prefill_chunk_size": 64,
                "head_dim": 32,
                "tensor_parallel_shards": 1,
                "max_batch_size": 1,
            },
        ),
    ],
)
def test_the_model_config_has_mlc_llms_fields(name: str, expected: Config, tmp_path: Path) -> None:
    sizes = Sizes(context_window_size=128, prefill_chunk_size=64)
    config = generate(GOLDEN / name / "hf", tmp_path, quantization="q4f16_1", sizes=sizes).config
    assert config["model_config"] == expected
    assert config["model_type"] == name
    assert config["conv_template"]["stop_token_ids"] == [0]
    spec = FAMILIES[name].spec(config["model_config"])
    assert spec == decoder(name)[0]  # a smaller context changes nothing of the model


def test_a_context_beyond_learned_positions_is_refused(tmp_path: Path) -> None:
    sizes = Sizes(context_window_size=257)
    with pytest.raises(UsageError, match="257 tokens is above the 256 positions"):
        generate(GOLDEN / "gpt2" / "hf", tmp_path / "out", quantization="q0f16", sizes=sizes)
    assert not (tmp_path / "out").exists()


def test_sizes_of_a_model_with_learned_positions_and_no_gate() -> None:
    model = facts.read(GOLDEN / "gpt2" / "hf")
    assert model.max_context == 256
    plan = ExportPlan(source=str(GOLDEN / "gpt2" / "hf"), quantization="q4f16_1")
    assert with_defaults(plan, model.max_context).context_window_size == 256
    sizes = estimate(model, plan)
    # Embedding, its copy that is the head, positions; two layers of 3 + 1 + 4 + 4 squares of 64.
    matrices = 2 * 384 * 64 + 256 * 64 + 2 * 12 * 64 * 64
    vectors = 2 * (4 * 64 + 3 * 64 + 64 + 256 + 64) + 2 * 64
    assert sizes.parameter_count == matrices + vectors
    assert sizes.weight_bytes == matrices // 2 + 2 * matrices // 32 + 2 * vectors
    assert sizes.kv_cache_bytes == 2 * 2 * 64 * 2 * 256
    assert sizes.temporary_bytes == 256 * 2 * (2 * 256 + 2 * 64 + 3 * 64)
    beyond = dataclasses.replace(plan, context_window_size=257)
    with pytest.raises(UsageError, match="257 tokens is above the 256 positions"):
        EmbeddedBackend().check(beyond, model)


# Settings that mlc_llm ignores or has no place for, and transformers computes.


@pytest.mark.parametrize(
    ("name", "changes", "windows"),
    [
        ("mistral", {}, [24, 24]),
        ("mistral", {"sliding_window": None}, [None, None]),
        ("mistral", {"sliding_window": 512}, [None, None]),  # as long as the model's context
        ("phi3", {"sliding_window": 100}, [100, 100]),
        ("gemma2", {}, [16, None]),
        ("gemma2", {"layer_types": None}, [16, None]),
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, [None, 16]),
        ("qwen2", {"sliding_window": 32}, [None, None]),  # stated, and not turned on
        ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}, [None, 32]),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 0}, [32, 32]),
    ],
)
def test_windows_reach_the_compiler(
    name: str, changes: Config, windows: list[int | None], tmp_path: Path
) -> None:
    source = tmp_path / "hf"
    shutil.copytree(GOLDEN / name / "hf", source, ignore=shutil.ignore_patterns("*.safetensors"))
    (source / "config.json").write_text(json.dumps(config_of(name, **changes)))
    written = generate(source, tmp_path / "out", quantization="q0f16").config
    spec = FAMILIES[name].spec(written["model_config"])
    assert [layer.window for layer in spec.layers] == windows
    assert (written["sliding_window_size"], written["context_window_size"]) == (-1, 512)


def test_where_mistrals_cache_rolls_no_layer_masks(tmp_path: Path) -> None:
    sizes = Sizes(sliding_window_size=64)
    written = generate(GOLDEN / "mistral" / "hf", tmp_path, quantization="q0f16", sizes=sizes).config
    spec = FAMILIES["mistral"].spec(written["model_config"])
    assert [layer.window for layer in spec.layers] == [None, None]
    assert spec.rolling == RollingCache(window=64, sinks=4)


FACTORS = {"short_factor": [1.0 + i / 8 for i in range(16)], "long_factor": [2.0 + i for i in range(16)]}


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "longrope", **FACTORS}, "original_max_position_embeddings": 128},
        {"rope_scaling": {"type": "su", **FACTORS}, "original_max_position_embeddings": 128},
        {
            "rope_theta": None,
            "original_max_position_embeddings": None,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 128,
                **FACTORS,
            },
        },
    ],
)
def test_longrope(changes: Config) -> None:
    spec, _ = decoder("phi3", **changes)
    scaling = spec.layers[0].rope_scaling
    assert scaling is not None
    assert scaling.short_factor == tuple(FACTORS["short_factor"])
    assert scaling.original_max_position_embeddings == 128
    assert scaling.attention_factor == pytest.approx(sqrt(1 + log(512 / 128) / log(128)))
    plain_frequencies = 10000.0 ** -(np.arange(16) / 16)
    for length, factors in ((128, "short_factor"), (129, "long_factor")):
        ours = evaluate.rope_frequencies(32, spec.layers[0], length)
        np.testing.assert_allclose(ours, plain_frequencies / FACTORS[factors])


def test_longrope_needs_a_factor_for_each_pair() -> None:
    scaling = {"type": "longrope", **FACTORS, "long_factor": [1.0]}
    with pytest.raises(UsageError, match="long_factor has 1 numbers, 16 pairs are rotated"):
        decoder("phi3", rope_scaling=scaling, original_max_position_embeddings=128)


# What is refused


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gemma", {"attention_bias": True}, "attention_bias = true; a Gemma model"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("gemma", {"hidden_activation": "silu"}, "hidden_activation = 'silu'"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = true"),
        ("gpt2", {"activation_function": "relu"}, "the activation 'relu'"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm = true"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm = true"),
        ("olmo2", {"attention_bias": True}, "attention_bias = true"),
        ("qwen2", {"rope_scaling": {"type": "ntk", "factor": 4.0}}, "rope_scaling of type 'ntk'"),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 4.0}}, "'linear' is none of Phi 3's"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5; a Llama model"),
        ("mistral", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
        ("gemma", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("gemma3_text", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("olmo2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("llama", {"rope_scaling": {"type": "mrope", "mrope_section": [8]}}, "rope_scaling of type 'mrope'"),
        ("gemma2", {"layer_types": ["full_attention"]}, "layer_types names 1 layers, num_hidden_layers is 2"),
        ("gemma3_text", {"layer_types": ["full_attention"]}, "layer_types names 1 layers"),
        ("gemma2", {"layer_types": ["linear_attention"] * 2}, "layer_types has linear_attention"),
        ("gpt2", {"n_head": 7}, "n_embd = 64 is no multiple of n_head = 7"),
        ("phi", {"num_attention_heads": 7}, "hidden_size = 64 is no multiple of num_attention_heads = 7"),
    ],
)
def test_settings_without_a_place_are_refused(name: str, changes: Config, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        decoder(name, **changes)
    assert words in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("model_type", "architecture", "near", "covered"),
    [
        ("mixtral", "MixtralForCausalLM", "mistral", True),
        ("qwen2_moe", "Qwen2MoeForCausalLM", "qwen2", True),
        ("gpt_bigcode", "GPTBigCodeForCausalLM", "gpt", True),
        ("gemma4", "Gemma4ForCausalLM", "gemma", False),
        ("mamba", "MambaForCausalLM", "", False),
    ],
)
def test_an_unknown_model_type_is_told_with_what_is_near_and_who_covers_it(
    model_type: str, architecture: str, near: str, covered: bool
) -> None:
    with pytest.raises(UsageError) as caught:
        family_of({"model_type": model_type, "architectures": [architecture]})
    assert f"{model_type!r} ({architecture})" in caught.value.what
    assert f"The nearest is {near}" in caught.value.why if near else caught.value.why
    assert ("with the mlc_llm backend" in caught.value.remedy) == covered
    assert (model_type in MLC_LLM_ONLY) == covered
