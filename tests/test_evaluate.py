"""The float32 evaluation against transformers, on source weights and on stored ones."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from conftest import GOLDEN
from safetensors import safe_open
from safetensors.numpy import load_file

from engine.catalog import QUANTIZATIONS
from engine.embedded import evaluate
from engine.embedded.convert_weight import convert
from engine.embedded.families.registry import family_of
from engine.embedded.locate import located
from engine.embedded.spec import DecoderSpec, LayerSpec, Parameter, RopeScaling
from engine.errors import StageError
from engine.model.config import normalise


def described(config_file: Path) -> tuple[DecoderSpec, tuple[Parameter, ...]]:
    config = normalise(json.loads(config_file.read_text()))
    family = family_of(config)
    spec = family.spec(family.model_config(config))
    return spec, family.parameters(spec)


def read_sources(folder: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return tensors


def deviation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, in standard deviations of the reference."""
    return float(np.abs(ours - theirs).max() / theirs.std())


def source_weights(folder: Path, parameters: tuple[Parameter, ...]) -> evaluate.SourceWeights:
    tensors = read_sources(folder / "hf")
    return evaluate.SourceWeights(located(parameters, tensors), tensors.__getitem__)


@pytest.mark.parametrize("config", ["hf/config.json", "config.transformers5.json"])
def test_source_weights_give_the_logits_of_transformers(referenced: Path, config: str) -> None:
    spec, parameters = described(referenced / config)
    reference = load_file(referenced / "reference.safetensors")
    ours = evaluate.logits(spec, source_weights(referenced, parameters), reference["input_ids"])
    assert ours.dtype == np.float32
    assert deviation(ours, reference["logits"]) < 5e-5


@pytest.mark.parametrize("mode", ["q0f32", "q4f32_1"])
def test_stored_weights_give_the_logits_of_transformers(referenced: Path, mode: str) -> None:
    folder = exports.weights(referenced.name, mode)
    spec, parameters = exports.decoder(folder)
    reference = load_file(referenced / "reference.safetensors")
    weights = evaluate.stored_weights(folder, parameters, QUANTIZATIONS[mode])
    ours = evaluate.logits(spec, weights, reference["input_ids"])
    assert deviation(ours, reference[f"logits_{mode}"]) < 5e-5
    if mode == "q4f32_1":  # q0f32 stores a source in bf16 as it is
        assert deviation(ours, reference["logits"]) > 1e-2


def test_greedy_continuation_is_that_of_transformers() -> None:
    folder = GOLDEN / "gemma3_text"
    spec, parameters = described(folder / "hf" / "config.json")
    reference = load_file(folder / "reference.safetensors")
    weights = evaluate.stored_weights(folder / "expected" / "q4f32_1", parameters, QUANTIZATIONS["q4f32_1"])
    ids = reference["prompt_ids"].tolist()
    for expected in reference["greedy_q4f32_1"].tolist():
        last = evaluate.logits(spec, weights, np.array(ids), last_only=True)
        assert last.shape == (1, spec.vocab_size)
        assert int(last.argmax()) == expected
        ids.append(expected)


@pytest.mark.parametrize("mode", [name for name, q in QUANTIZATIONS.items() if not q.from_awq])
@pytest.mark.parametrize("model", ["gemma3_text", "llama"])
def test_stored_weights_are_near_their_source(model: str, mode: str, tmp_path: Path) -> None:
    """The stored rows are the source's, rounded: to the dtype, or to a part of the group's largest."""
    folder, how = GOLDEN / model, QUANTIZATIONS[mode]
    _, parameters = described(folder / "hf" / "config.json")
    convert(folder / "hf", mode, tmp_path, progress=lambda *_: None)
    stored = evaluate.stored_weights(tmp_path, parameters, how)
    source = source_weights(folder, parameters)
    size, levels = (40, 3) if mode.startswith("q3") else (32, 7)
    for parameter in parameters:
        ours, theirs = stored[parameter.role][:], source[parameter.role][:]
        assert ours.shape == theirs.shape == parameter.shape
        np.testing.assert_array_equal(stored[parameter.role][3:7], ours[3:7])
        left = parameter.kind == "norm" or (mode.endswith("_2") and parameter.kind != "linear")
        if how.bits is None or left:
            # bf16(1 + w) rounds to 2^-8 of a norm near 1.
            half = how.model_dtype == "float16" and not parameter.plus_one
            np.testing.assert_allclose(ours, theirs, rtol=2**-10 if half else 2**-8, atol=1e-7)
        else:
            padding = ((0, 0), (0, -theirs.shape[1] % size))
            groups = np.abs(np.pad(theirs, padding).reshape(-1, size)).max(1)
            worst = np.abs(np.pad(ours - theirs, padding).reshape(-1, size)).max(1)
            assert (worst <= groups * (0.5 / levels + 0.02)).all()


def test_rows_are_read_alone() -> None:
    folder = GOLDEN / "gemma3_text"
    _, parameters = described(folder / "hf" / "config.json")
    for mode in ("q0f32", "q4f32_1"):
        weights = evaluate.stored_weights(folder / "expected" / mode, parameters, QUANTIZATIONS[mode])
        whole = weights[parameters[0].role][:]
        rows = np.array([7, 0, 383, 7])
        np.testing.assert_array_equal(weights[parameters[0].role][rows], whole[rows])
        np.testing.assert_array_equal(weights[parameters[0].role][10:20], whole[10:20])


def without_windows(spec: DecoderSpec) -> DecoderSpec:
    layers = tuple(dataclasses.replace(layer, window=None) for layer in spec.layers)
    return dataclasses.replace(spec, layers=layers)


def with_swapped_thetas(spec: DecoderSpec) -> DecoderSpec:
    local, full = spec.layers[0].rope_theta, spec.layers[5].rope_theta
    swap = {local: full, full: local}
    layers = tuple(dataclasses.replace(layer, rope_theta=swap[layer.rope_theta]) for layer in spec.layers)
    return dataclasses.replace(spec, layers=layers)


WRONG = {
    "no window": without_windows,
    "window one wider": lambda spec: dataclasses.replace(
        spec,
        layers=tuple(
            dataclasses.replace(layer, window=layer.window and layer.window + 1) for layer in spec.layers
        ),
    ),
    "no qk norm": lambda spec: dataclasses.replace(spec, qk_norm=None),
    "swapped thetas": with_swapped_thetas,
    "no embedding scale": lambda spec: dataclasses.replace(spec, embedding_scale=1.0),
    "another attention scale": lambda spec: dataclasses.replace(spec, attention_scale=32**-0.5),
    "another activation": lambda spec: dataclasses.replace(spec, activation="silu"),
}


@pytest.mark.parametrize("change", WRONG)
def test_every_part_of_the_spec_matters(change: str) -> None:
    """A wrong spec is off by over a hundred times the tolerance, so agreement says something."""
    folder = GOLDEN / "gemma3_text"
    spec, parameters = described(folder / "hf" / "config.json")
    reference = load_file(folder / "reference.safetensors")
    ours = evaluate.logits(WRONG[change](spec), source_weights(folder, parameters), reference["input_ids"])
    assert deviation(ours, reference["logits"]) > 1e-2


def test_rope_scaling_matters() -> None:
    folder = GOLDEN / "llama3_rope"
    spec, parameters = described(folder / "hf" / "config.json")
    reference = load_file(folder / "reference.safetensors")
    plain = dataclasses.replace(
        spec, layers=tuple(dataclasses.replace(layer, rope_scaling=None) for layer in spec.layers)
    )
    ours = evaluate.logits(plain, source_weights(folder, parameters), reference["input_ids"])
    assert deviation(ours, reference["logits"]) > 1e-2


def test_linear_scaling_divides_every_frequency() -> None:
    plain = evaluate.rope_frequencies(8, LayerSpec(rope_theta=10000.0))
    np.testing.assert_allclose(plain, [1, 0.1, 0.01, 0.001])
    scaling = RopeScaling(rope_type="linear", factor=4.0)
    scaled = evaluate.rope_frequencies(8, LayerSpec(rope_theta=10000.0, rope_scaling=scaling))
    np.testing.assert_allclose(scaled, plain / 4)


def test_llama3_scaling_keeps_short_wavelengths_and_stretches_long_ones() -> None:
    scaling = RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=8192)
    layer = LayerSpec(rope_theta=500000.0)
    plain = evaluate.rope_frequencies(128, layer)
    scaled = evaluate.rope_frequencies(128, dataclasses.replace(layer, rope_scaling=scaling))
    turns = 8192 * plain / (2 * np.pi)
    np.testing.assert_allclose(scaled[turns >= 4], plain[turns >= 4])
    np.testing.assert_allclose(scaled[turns <= 1], plain[turns <= 1] / 8)
    between = (turns > 1) & (turns < 4)
    assert between.any()
    assert ((scaled > plain / 8) & (scaled < plain))[between].all()


def broken_export(tmp_path: Path, change: Any) -> Path:
    folder = tmp_path / "export"
    shutil.copytree(GOLDEN / "gemma3_text" / "expected" / "q4f32_1", folder)
    cache = json.loads((folder / "tensor-cache.json").read_text())
    change(folder, cache["records"][0])
    (folder / "tensor-cache.json").write_text(json.dumps(cache))
    return folder


def cut_shard(folder: Path, shard: dict[str, Any]) -> None:
    path = folder / shard["dataPath"]
    path.write_bytes(path.read_bytes()[:-1])


def drop_record(_: Path, shard: dict[str, Any]) -> None:
    shard["records"].pop(0)


def shrink_shape(_: Path, shard: dict[str, Any]) -> None:
    shard["records"][0]["shape"][0] -= 1


def no_records(_: Path, shard: dict[str, Any]) -> None:
    del shard["records"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_shard, "shorter than"),
        (drop_record, "embed_tokens.weight"),
        (shrink_shape, "its shape needs"),
        (no_records, "cannot be read"),
    ],
)
def test_a_broken_export_is_told_in_words(tmp_path: Path, change: Any, words: str) -> None:
    _, parameters = described(GOLDEN / "gemma3_text" / "hf" / "config.json")
    with pytest.raises(StageError, match=words) as caught:
        evaluate.stored_weights(broken_export(tmp_path, change), parameters, QUANTIZATIONS["q4f32_1"])
    assert caught.value.remedy
