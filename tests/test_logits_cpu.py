"""The compiled decoder on the CPU gives the logits of transformers at every position.

Tolerances are fractions of the logits' standard deviation. The whole prompt, chunks of it and single
tokens must agree, past the window (16 tokens, of 48), with chunks below, at and above the window.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FAMILIES
from exports import CHUNK, GOLDEN, LIBRARY, QUANTIZATIONS, decoder, export, source, weights
from numpy.typing import NDArray
from safetensors.numpy import load_file

from engine.embedded import evaluate
from engine.embedded.local import LocalModel
from engine.model.tensors import open_tensors

F32_TOLERANCE = 1e-4
F16_TOLERANCE = 1e-2
# Below, at and above the window of 16, and primes that leave an odd last chunk.
CHUNKS = (3, 15, 16, 17, 31)
# One model of each kind of parameter that is stored in float16: GPT-NeoX has float32 biases beside them.
MIXED = ("gemma3_text", "llama", "gpt_neox", "gpt2")


@cache
def _reference(model: str) -> dict[str, NDArray[Any]]:
    return load_file(GOLDEN / model / "reference.safetensors")


@cache
def _model(model: str, quantization: str) -> LocalModel:
    folder = export(model, quantization, "cpu")
    return LocalModel(folder, folder / LIBRARY["cpu"])


def _source_model(model: str) -> LocalModel:
    """The decoder on the source weights in float32, which no export stores."""
    folder = export(model, "q0f32", "cpu")
    _, parameters = decoder(folder)
    tensors = open_tensors(source(model))
    weights = evaluate.SourceWeights(parameters, tensors.read)
    full = {p.name: np.asarray(weights[p.role][:], np.float32) for p in parameters}
    return LocalModel(folder, folder / LIBRARY["cpu"], full)


def _error(found: NDArray[Any], want: NDArray[Any], scale: float) -> float:
    assert np.isfinite(found).all()
    return float(np.abs(found - want).max() / scale)


def _worst(model: LocalModel, ids: list[int], want: NDArray[Any]) -> float:
    """The largest error over every way of feeding `ids`, as a fraction of the standard deviation."""
    scale, errors = float(want.std()), []
    for n in range(1, len(ids) + 1):  # whole: each prefix in one chunk
        model.reset()
        errors.append(_error(model.step(ids[:n]), want[n - 1], scale))
    for size in (1, *CHUNKS):
        model.reset()
        for start in range(0, len(ids), size):
            logits = model.step(ids[start : start + size])
            errors.append(_error(logits, want[min(start + size, len(ids)) - 1], scale))
    return max(errors)


@pytest.mark.parametrize("model", FAMILIES)
def test_source_weights(model: str) -> None:
    reference = _reference(model)
    error = _worst(_source_model(model), reference["input_ids"].tolist(), reference["logits"])
    assert error < F32_TOLERANCE


@pytest.mark.parametrize("quantization", ["q0f32", "q4f32_1"])
@pytest.mark.parametrize("model", FAMILIES)
def test_float32_exports(model: str, quantization: str) -> None:
    reference = _reference(model)
    want = reference[f"logits_{quantization}"]
    error = _worst(_model(model, quantization), reference["input_ids"].tolist(), want)
    assert error < F32_TOLERANCE


@pytest.mark.parametrize("quantization", ["q0f16", "q4f16_1"])
@pytest.mark.parametrize("model", MIXED)
def test_float16_exports_against_their_stored_weights(model: str, quantization: str) -> None:
    """What float16 costs here is the rounding of the KV cache: activations are float32."""
    folder = export(model, quantization, "cpu")
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS[quantization])
    ids = _reference(model)["input_ids"]
    want = evaluate.logits(spec, stored, ids)
    assert _worst(_model(model, quantization), ids.tolist(), want) < F16_TOLERANCE


@pytest.mark.parametrize("model", FAMILIES)
def test_transformers_5_config(model: str) -> None:
    """It gives the same decoder, so the same library, which takes the weights converted with it."""
    four, five = export(model, "q0f32", "cpu"), weights(model, "q0f32", transformers=5)
    assert decoder(five) == decoder(four)
    reference = _reference(model)
    want = reference["logits_q0f32"]
    logits = LocalModel(five, four / LIBRARY["cpu"]).step(reference["input_ids"].tolist())
    assert _error(logits, want[-1], float(want.std())) < F32_TOLERANCE


@pytest.mark.parametrize("model", FAMILIES)
def test_greedy_tokens_and_a_second_turn(model: str) -> None:
    """The reference's greedy run, then the same prompt again on the kept cache: more than the window."""
    reference = _reference(model)
    local = _model(model, "q4f32_1")
    local.reset()
    logits, said = local.step(reference["prompt_ids"].tolist()), []
    for _ in reference["greedy_q4f32_1"]:
        said.append(int(logits.argmax()))
        logits = local.step(said[-1:])
    assert said == reference["greedy_q4f32_1"].tolist()

    whole = [*reference["prompt_ids"].tolist(), *said, *reference["prompt_ids"].tolist()]
    second = local.step(reference["prompt_ids"].tolist())
    folder = export(model, "q4f32_1", "cpu")
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q4f32_1"])
    want = evaluate.logits(spec, stored, np.asarray(whole))
    assert _error(second, want[-1], float(want.std())) < F32_TOLERANCE


def test_prompts_longer_than_a_chunk_are_split() -> None:
    """The library refuses nothing up to its chunk, and LocalModel splits what is longer."""
    local = _model("gemma3_text", "q0f32")
    ids = (_reference("gemma3_text")["input_ids"].tolist() * 3)[: CHUNK + 40]
    folder = export("gemma3_text", "q0f32", "cpu")
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q0f32"])
    want = evaluate.logits(spec, stored, np.asarray(ids))
    local.reset()
    assert _error(local.step(ids), want[-1], float(want.std())) < F32_TOLERANCE


def test_activations_may_pass_the_largest_float16() -> None:
    """Gemma 3's do: activations are float32 whatever the weights, so nothing becomes infinite."""
    folder = export("gemma3_text", "q0f16", "cpu")
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q0f16"])
    weights = {role: stored[role][:] for role in stored}
    embedding = weights["embedding"]
    embedding *= np.float32(30000 / np.abs(embedding).max())
    ids = _reference("gemma3_text")["input_ids"]
    hidden = np.abs(embedding[ids]).max() * spec.embedding_scale
    assert hidden > np.finfo("f2").max
    model = LocalModel(
        folder, folder / LIBRARY["cpu"], {p.name: weights[p.role].astype("f2") for p in parameters}
    )
    want = evaluate.logits(spec, {r: v.astype("f2").astype("f4") for r, v in weights.items()}, ids)
    assert _error(model.step(ids.tolist()), want[-1], float(want.std())) < F16_TOLERANCE


@pytest.mark.parametrize("quantization", ["q4f32_1", "q4f16_1"])
def test_no_dequantized_weight_is_planned(quantization: str) -> None:
    """The temporaries of a step hold activations: less than the largest matrix would take."""
    import json

    import tvm
    from tvm import relax

    folder = export("llama", quantization, "cpu")
    vm = relax.VirtualMachine(tvm.runtime.load_module(str(folder / LIBRARY["cpu"])), tvm.cpu())
    planned = json.loads(str(vm["_metadata"]()))["memory_usage"]
    spec, _ = decoder(folder)
    row = 4 * (3 * spec.intermediate_size + 4 * spec.hidden_size)
    assert 0 < planned["decode"] <= 2 * row
    assert 0 < planned["prefill"] <= 2 * row * CHUNK
    assert planned["decode"] < spec.vocab_size * spec.hidden_size


def test_library_of_another_quantization_is_refused(tmp_path: Path) -> None:
    from engine.errors import StageError

    with pytest.raises(StageError, match="q_weight"):
        LocalModel(export("llama", "q0f32", "cpu"), export("llama", "q4f32_1", "cpu") / LIBRARY["cpu"])
