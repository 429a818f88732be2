"""Weights as published folders have them: what lies beside the decoder's own tensors, and what that means."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from convert_support import GOLDEN, Changed, Tensors, silent
from safetensors.numpy import load_file, save_file

from engine.embedded.convert_weight import convert
from engine.embedded.families.registry import family_of
from engine.errors import UsageError
from engine.model import facts
from engine.model.tensors import INDEX_FILE

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def model(tmp_path: Path) -> Changed:
    """Makes changed copies of a golden model, whose head is its embedding."""
    return Changed(tmp_path)


def refused(folder: Path, quantization: str = "q0f16") -> UsageError:
    out = folder.parent / "refused"
    with pytest.raises(UsageError) as caught:
        convert(folder, quantization, out, progress=silent)
    assert not out.exists()
    assert caught.value.remedy
    return caught.value


def add(name: str, like: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[like].copy()

    return change


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("model.layers.0.self_attn.q_proj.bias", "model.norm.weight"),
        ("model.layers.1.self_attn.q_norm.weight", "model.norm.weight"),
        ("model.layers.2.input_layernorm.weight", "model.norm.weight"),
        ("model.norm.bias", "model.norm.weight"),
    ],
)
def test_what_is_left_of_a_layer_is_no_small_matter(name: str, like: str, model: Changed) -> None:
    """A bias or a norm that config.json does not speak of, and a layer more than it counts."""
    folder = model(add(name, like))
    error = refused(folder)
    assert f"1 tensors of the decoder that config.json leaves no place for: {name}" in error.what
    assert "2 layers" in error.why
    with pytest.raises(UsageError, match="leaves no place for"):
        facts.read(folder)


def test_a_bias_of_the_head_is_no_small_matter(tmp_path: Path) -> None:
    """As Phi-4-mini's lm_head_bias would have it."""
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_bytes((GOLDEN / "mistral" / "hf" / "config.json").read_bytes())
    tensors = load_file(GOLDEN / "mistral" / "hf" / "model.safetensors")
    save_file(tensors | {"lm_head.bias": np.ones(384, np.float32)}, folder / "model.safetensors")
    assert "leaves no place for: lm_head.bias" in refused(folder).what


def test_a_layer_less_in_the_config_is_no_small_matter(model: Changed) -> None:
    assert "model.layers.1." in refused(model(num_hidden_layers=1)).what


def test_a_tower_beside_the_layers_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in gemma-3-4b-it, in either spelling of its names."""
    for spelling in ("language_model.model.", "model.language_model."):
        folder = Changed(tmp_path)(name=f"{spelling}folder")
        tensors = load_file(GOLDEN / "llama_tied" / "hf" / "model.safetensors")
        named = {spelling + key.removeprefix("model."): value for key, value in tensors.items()}
        tower = {"vision_tower.vision_model.encoder.layers.0.layer_norm1.weight": np.ones(4, np.float32)}
        save_file(named | tower, folder / "model.safetensors")
        convert(folder, "q0f16", tmp_path / "out", progress=silent)
        assert "1 tensors of the source have no place in this model: vision" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["q_proj.qweight", "q_proj.weight_packed"])
def test_quantized_weights_are_told_without_a_config_that_says_so(name: str, model: Changed) -> None:
    def change(tensors: Tensors) -> None:
        weight = tensors.pop("model.layers.0.self_attn.q_proj.weight")
        tensors[f"model.layers.0.self_attn.{name}"] = weight.view(np.int16)

    assert "quantized already" in refused(model(change)).why


def test_a_copy_of_a_shared_head_may_be_there_and_another_head_may_not(model: Changed) -> None:
    whole = model(add(HEAD, EMBEDDING), "same")
    convert(whole, "q4f16_1", model.home / "one", progress=silent)
    convert(GOLDEN / "llama_tied" / "hf", "q4f16_1", model.home / "other", progress=silent)
    for path in (model.home / "one").glob("*.bin"):
        assert path.read_bytes() == (model.home / "other" / path.name).read_bytes()

    def other(tensors: Tensors) -> None:
        tensors[HEAD] = tensors[EMBEDDING].copy()
        tensors[HEAD][-1, -1] += 1

    error = refused(model(other, "other-head"))
    assert f"{HEAD} has other values than {EMBEDDING}" in error.what
    assert "tie_word_embeddings to false" in error.remedy
    # As it then says, the head that is stored is the one that counts.
    convert(model(other, "untied", tie_word_embeddings=False), "q0f16", model.home / "two", progress=silent)


def test_a_shared_head_of_another_shape_is_another_head(model: Changed) -> None:
    error = refused(model(lambda tensors: tensors.update({HEAD: tensors[EMBEDDING][:-1].copy()})))
    assert "has other values" in error.what


def test_gpt2_saved_with_its_head(tmp_path: Path) -> None:
    """As DialoGPT is: a prefix, masks, and the head that is the embedding."""
    folder = tmp_path / "hf"
    folder.mkdir()
    tensors = load_file(GOLDEN / "gpt2" / "hf" / "model.safetensors")
    named = {f"transformer.{key}": value for key, value in tensors.items()}
    named[HEAD] = tensors["wte.weight"].copy()
    for i in range(2):
        named[f"transformer.h.{i}.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
        named[f"transformer.h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)
    save_file(named, folder / "model.safetensors")
    (folder / "config.json").write_bytes((GOLDEN / "gpt2" / "hf" / "config.json").read_bytes())
    convert(folder, "q0f16", tmp_path / "out", progress=silent)
    named[HEAD][0] += 1
    save_file(named, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"lm_head\.weight has other values than transformer\.wte\.weight"):
        convert(folder, "q0f16", tmp_path / "other", progress=silent)


def test_weights_in_other_places_are_no_part_of_a_model(tmp_path: Path) -> None:
    """As in Mistral 7B v0.3 and Llama 3: the same weights once more, in the form of who trained them."""
    folder = tmp_path / "hf"
    (folder / "original").mkdir(parents=True)
    for path in (GOLDEN / "llama" / "hf").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "consolidated.safetensors").write_bytes(b"not read")
    (folder / "original" / "consolidated.00.pth").write_bytes(b"not read")
    (folder / "params.json").write_text("{}")
    (folder / "tokenizer.model.v3").write_bytes(b"not read")
    convert(folder, "q4f16_1", tmp_path / "out", progress=silent)
    assert facts.read(folder).source_bytes == facts.read(GOLDEN / "llama" / "hf").source_bytes
    # Of the copy alone it is not known which tensor is which.
    (folder / INDEX_FILE).unlink()
    for path in folder.glob("model-*.safetensors"):
        path.unlink()
    assert "consolidated.safetensors, but neither model.safetensors" in refused(folder).what


@pytest.mark.parametrize(
    "architecture",
    ["LlamaForSequenceClassification", "Qwen2ForRewardModel", "MistralForTokenClassification"],
)
def test_a_model_that_writes_no_text_is_refused(architecture: str, model: Changed) -> None:
    error = refused(model(architectures=[architecture]))
    assert error.what == f"This model is a {architecture}, which writes no text."


@pytest.mark.parametrize(("name", "other"), [("mistral", "llama"), ("gemma", "llama"), ("llama", "mistral")])
def test_a_model_type_that_contradicts_config_json_is_refused(name: str, other: str, tmp_path: Path) -> None:
    """Their tensors have the same names: a Mistral would lose its window, a Gemma its scales."""
    source = GOLDEN / name / "hf"
    with pytest.raises(UsageError, match=f"but config.json is that of a {name} model"):
        convert(source, "q0f16", tmp_path / "out", model_type=other, progress=silent)
    assert facts.read(source, other).unsupported is not None
    assert family_of({"model_type": "my-own"}, other).model_type == other
    assert family_of({"model_type": "gemma3"}, "gemma3_text").model_type == "gemma3_text"


def test_a_model_that_embeds_text_is_refused(model: Changed) -> None:
    """As Qwen3-Embedding is: a causal decoder by config.json, with a shared head."""
    folder = model()
    (folder / "modules.json").write_text("[]")
    assert "embeds text and writes none" in refused(folder).what
    with pytest.raises(UsageError, match="embeds text and writes none"):
        facts.read(folder)


@pytest.mark.parametrize(
    ("model_type", "architecture", "later", "covered"),
    [
        ("phi-msft", "PhiForCausalLM", "phi", True),
        ("mixformer-sequential", "MixFormerSequentialForCausalLM", "phi", True),
        ("stablelm_epoch", "StableLMEpochForCausalLM", "stablelm", False),
    ],
)
def test_a_revision_older_than_transformers_code_is_told_as_one(
    model_type: str, architecture: str, later: str, covered: bool
) -> None:
    with pytest.raises(UsageError) as caught:
        family_of({"model_type": model_type, "architectures": [architecture], "n_embd": 64, "n_head": 4})
    assert f"{model_type!r} is that of an early revision" in caught.value.what
    assert f"of type {later!r}" in caught.value.why
    assert ("mlc_llm backend" in caught.value.remedy) == covered


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [("gpt2", "GPT2LMHeadModel"), ("gpt2", "GPT2Model"), ("gemma3", "Gemma3ForConditionalGeneration")],
)
def test_other_names_of_a_model_that_writes_are_none_of_those(model_type: str, architecture: str) -> None:
    family_of({"model_type": model_type, "architectures": [architecture]})


@pytest.mark.parametrize(
    ("stated", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes"),
        ({"quantization_config": {}}, "unknown"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "mlx"),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "gptq"),
    ],
)
def test_quantized_models_are_refused_by_what_their_config_says(
    stated: dict[str, object], method: str, model: Changed
) -> None:
    folder = model(**stated)
    error = refused(folder)
    assert error.what == f"This model is quantized already ({method})."
    found = facts.read(folder)
    assert found.quant_method == method
    assert found.unsupported is not None
    assert found.unsupported.what == error.what
