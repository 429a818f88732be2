"""Bad input to the convert_weight stage is told in plain words, and nothing is written."""

import json
from pathlib import Path

import numpy as np
import pytest
from convert_support import GOLDEN, Changed, Tensors, check_whole, silent

from engine.embedded.__main__ import main
from engine.embedded.convert_weight import convert
from engine.embedded.source import decoder_of
from engine.errors import WizardError
from engine.model import facts
from engine.model.config import normalise
from engine.model.tensors import open_tensors


@pytest.fixture
def model(tmp_path: Path) -> Changed:
    """Makes changed copies of a golden model."""
    return Changed(tmp_path)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, out: Path) -> str:
    """What the command says on stderr when it refuses `arguments`; nothing may have been written."""
    options = ["-o", str(out)] + ([] if "--quantization" in arguments else ["--quantization", "q0f16"])
    assert main(["convert_weight", *arguments, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert len(captured.err.splitlines()) >= 2  # what, and a remedy
    assert not out.exists()
    return captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--device", "cuda"), "--device cuda is not supported"),
        (("--source-format", "awq"), "--source-format awq goes with --quantization q4f16_autoawq"),
        (("--quantization", "q4f16_awq"), "takes over the 4 bit weights of an AWQ checkpoint"),
        (("--source-format", "huggingface-torch"), "not of the format that --source-format names"),
        (("--lora-adapter", "adapter"), "adapter is no adapter: it has no adapter_config.json"),
        (("--quantization", "q8f16_1"), "Choose one of q0f16, "),
        (("--model-type", "gemma9"), "Model type 'gemma9'"),
        (("--source", "nowhere"), "There is no folder nowhere"),
    ],
)
def test_a_flag_that_is_not_supported_is_refused(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(capsys, str(GOLDEN / "llama" / "hf"), *flags, out=tmp_path / "out")


@pytest.mark.parametrize("device", ["auto", "cpu", "cpu:0"])
def test_the_cpu_is_accepted_by_name(device: str, tmp_path: Path) -> None:
    arguments = ["convert_weight", str(GOLDEN / "llama" / "hf" / "config.json"), "--quantization", "q0f16"]
    flags = ["--device", device, "--source-format", "huggingface-safetensor", "--model-type", "llama"]
    assert main([*arguments, *flags, "--output", str(tmp_path)]) == 0
    check_whole(tmp_path)


def test_a_folder_or_config_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "There is no nowhere." in told(capsys, "nowhere", out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    found = told(capsys, str(tmp_path / "empty"), out=tmp_path / "out")
    assert str(Path("empty") / "config.json") in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not valid JSON"),
        ("[]", "config.json holds no JSON object"),
        ("{}", "is not supported by the embedded compiler"),
        ('{"model_type": "llama"}', "config.json has no "),
        ('{"model_type": "gemma3_text"}', "config.json "),
    ],
)
def test_a_bad_config_says_what_is_wrong(
    text: str, message: str, model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model()
    (folder / "config.json").write_text(text)
    assert message in told(capsys, str(folder), out=tmp_path / "out")


@pytest.mark.parametrize("value", ["16", None, 0, [64], {}])
def test_a_config_value_of_the_wrong_type_is_no_traceback(
    value: object, model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(num_attention_heads=value, head_dim=None)
    assert "config" in told(capsys, str(folder), out=tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 2**40},
        {"num_hidden_layers": 1e300},
        {"rms_norm_eps": "1e-5"},
        {"rms_norm_eps": True},
        {"rope_theta": 0},
        {"rope_theta": "x"},
        {"rope_theta": 1e999},
        {"head_dim": 10**40},
        {"head_dim": 15},
        {"model_type": {}},
        {"model_type": ["llama"]},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [None]},
        {"architectures": 5},
    ],
)
def test_no_value_of_a_config_is_a_traceback(
    changes: dict[str, object], model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(**changes)
    assert "config" in told(capsys, str(folder), out=tmp_path / "out")
    with pytest.raises(WizardError, match="config"):
        facts.read(folder).decoder()


@pytest.mark.parametrize("window", [0, -1, "x", [4], 2.5])
def test_a_window_that_no_attention_has(window: object, tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "gemma2" / "hf" / "config.json").read_text()) | {"sliding_window": window}
    with pytest.raises(WizardError, match="does not describe a gemma2 model"):
        decoder_of(normalise(config))


@pytest.mark.parametrize("value", [0, -64, 64.0])
def test_a_size_that_no_model_has_is_refused(
    value: object, model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(hidden_size=value, head_dim=16)), out=tmp_path / "out")
    assert f"hidden_size = {value} is no whole number above 0" in found


def test_a_name_no_folder_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(WizardError, match=r"a{300}"):
        convert(Path("a" * 300), "q0f16", tmp_path / "out", progress=silent)
    with pytest.raises(WizardError, match=r"a{300}"):
        open_tensors(Path("a" * 300))


def test_a_missing_tensor_is_named(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "no tensor model.layers.1.mlp.up_proj.weight" in told(capsys, str(folder), out=tmp_path / "out")


def test_a_model_that_lacks_only_its_head_is_told_of_tying(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(tie_word_embeddings=False)), out=tmp_path / "out")
    assert "no tensor lm_head.weight" in found
    assert "set tie_word_embeddings to true" in found


@pytest.mark.parametrize(
    ("prefix", "message"),
    [("base_model.model.lora_A.", "a LoRA adapter"), ("thinker.", "may be of different models")],
)
def test_tensors_under_other_names_are_recognised(
    prefix: str,
    message: str,
    model: Changed,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    assert message in told(capsys, str(model(rename)), out=tmp_path / "out")


def test_a_resized_vocabulary_is_recognised(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(vocab_size=400)), out=tmp_path / "out")
    assert "found model.embed_tokens.weight [384, 64]; config.json asks for [400, 64]" in found
    assert "vocab_size" in found


def test_another_width_is_no_resized_vocabulary(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(hidden_size=128)), out=tmp_path / "out")
    assert "config.json asks for [384, 128]" in found
    assert "Take config.json and weights from the same model." in found


def test_a_tensor_of_another_shape_shows_both_shapes(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(intermediate_size=200)), out=tmp_path / "out")
    assert "config.json asks for " in found
    assert "160" in found


def test_a_quantized_checkpoint_is_refused_by_its_dtype(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def narrow(tensors: Tensors) -> None:
        name = "model.layers.0.mlp.down_proj.weight"
        tensors[name] = tensors[name].astype(np.float32).astype(np.int8)

    found = told(capsys, str(model(narrow)), out=tmp_path / "out")
    assert "Tensor model.layers.0.mlp.down_proj.weight in model.safetensors has dtype I8" in found
