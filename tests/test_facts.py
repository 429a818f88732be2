"""Facts of model folders, good and bad."""

import json
import shutil
import struct
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN

from engine.errors import UsageError
from engine.model import facts

FAMILIES = ("gemma3_text", "llama", "llama_tied", "llama3_rope")

EXPECTED = {
    "gemma3_text": ("gemma3_text", "BF16", 16, True, 327_936),
    "llama": ("llama", "F16", None, False, 135_488),
    "llama_tied": ("llama", None, None, True, 110_912),
    "llama3_rope": ("llama", None, None, False, 135_488),
}


def copy(name: str, to: Path, **changes: Any) -> Path:
    """A golden model's folder under `to`, its config.json changed; None removes a key."""
    folder = to / "model"
    shutil.copytree(GOLDEN / name / "hf", folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


def refused(folder: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        facts.read(folder)
    return caught.value


@pytest.mark.parametrize("name", FAMILIES)
def test_golden_models(name: str) -> None:
    found = facts.read(GOLDEN / name / "hf")
    model_type, dtype, window, tied, count = EXPECTED[name]
    spec = found.decoder()
    assert (found.model_type, found.window, spec.tie_word_embeddings) == (model_type, window, tied)
    assert found.parameter_count == count
    assert found.parameter_count == sum(prod(p.shape) for p in found.parameters)
    if dtype:
        assert found.dtype == dtype
    assert found.max_context == 512
    assert found.tokenizer_files == ("tokenizer.json",)
    assert found.tokenizer_bytes == (GOLDEN / name / "hf" / "tokenizer.json").stat().st_size
    assert found.has_chat_template
    assert found.unsupported is None


def test_headers_and_spec_count_the_same_weights(golden: Path) -> None:
    found = facts.read(golden / "hf")
    assert found.source_parameter_count == found.parameter_count
    size = {"BF16": 2, "F16": 2, "F32": 4}[found.dtype]
    assert found.source_bytes == size * found.parameter_count
    assert found.largest_tensor_bytes == size * 384 * 64


def test_a_transformers_5_config_says_the_same(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(golden / "hf", folder)
    old = facts.read(folder)
    shutil.copy(golden / "config.transformers5.json", folder / "config.json")
    new = facts.read(folder)
    assert new.spec == old.spec
    assert (new.window, new.max_context) == (old.window, old.max_context)


def test_chat_template_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path)
    (folder / "tokenizer_config.json").unlink()
    assert not facts.read(folder).has_chat_template
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert facts.read(folder).has_chat_template


def test_an_unsupported_architecture_is_a_fact_and_an_error_when_compiled(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path, model_type="lama4", architectures=["Lama4ForCausalLM"])
    found = facts.read(folder)
    assert found.spec is None
    assert found.model_type == "lama4"
    assert found.parameter_count == found.source_parameter_count
    with pytest.raises(UsageError) as caught:
        found.decoder()
    assert "Lama4ForCausalLM" in caught.value.what
    assert "The nearest is llama." in caught.value.why
    assert "gemma3_text" in caught.value.why


def test_model_type_can_be_named(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path, model_type="my-llama", architectures=["MyModel"])
    assert facts.read(folder).spec is None
    assert facts.read(folder, "llama").decoder().model_type == "llama"


def test_a_quantized_checkpoint_is_not_supported(tmp_path: Path) -> None:
    found = facts.read(copy("llama", tmp_path, quantization_config={"quant_method": "gptq"}))
    with pytest.raises(UsageError, match=r"quantized already \(gptq\)"):
        found.decoder()


def test_multimodal_configs_have_their_context_inside(tmp_path: Path) -> None:
    text = {"max_position_embeddings": 777, "sliding_window": 99}
    folder = copy("llama", tmp_path, model_type="other", architectures=[], text_config=text)
    found = facts.read(folder)
    assert (found.max_context, found.window) == (777, 99)


def test_missing_folder_and_file_instead_of_folder(tmp_path: Path) -> None:
    assert "There is no folder" in refused(tmp_path / "nowhere").what
    (tmp_path / "file").write_text("x")
    assert "is a file, not a model folder" in refused(tmp_path / "file").what


def test_missing_config(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path)
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder).what
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert "LoRA adapter" in refused(tmp_path / "adapter").what


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "no JSON object"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    ],
)
def test_broken_config(tmp_path: Path, text: str, expected: str) -> None:
    folder = copy("llama", tmp_path)
    (folder / "config.json").write_text(text)
    error = refused(folder)
    assert expected in error.what
    assert "config.json" in error.what


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_size": None}, "has no hidden_size"),
        ({"num_hidden_layers": "2"}, "does not describe a llama model"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0 is no whole number above 0"),
        ({"vocab_size": -5}, "vocab_size = -5"),
        ({"intermediate_size": 1.5}, "intermediate_size = 1.5"),
        ({"num_attention_heads": 0, "head_dim": None}, "does not describe a llama model"),
        (
            {"num_attention_heads": 3, "num_key_value_heads": 2},
            "num_attention_heads = 3 is no multiple of num_key_value_heads = 2",
        ),
        ({"rope_scaling": {"rope_type": "linear"}}, "has no factor"),
    ],
)
def test_configs_that_describe_no_decoder(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    found = facts.read(copy("llama", tmp_path, **changes))
    with pytest.raises(UsageError) as caught:
        found.decoder()
    assert "config.json" in caught.value.what
    assert expected in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_hidden_layers": 3}, ["no tensor model.layers.2.input_layernorm.weight"]),
        ({"hidden_size": 128}, ["model.embed_tokens.weight [384, 64]", "[384, 128]"]),
        ({"num_key_value_heads": 2}, ["k_proj.weight [32, 64]", "[192, 64] together"]),
        ({"vocab_size": 400}, ["model.embed_tokens.weight [384, 64]", "[400, 64]"]),
    ],
)
def test_weights_that_do_not_fit_their_config(
    tmp_path: Path, changes: dict[str, Any], expected: list[str]
) -> None:
    error = refused(copy("llama", tmp_path, **changes))
    assert error.remedy
    for part in expected:
        assert part in error.what


def test_untied_head_that_is_not_there(tmp_path: Path) -> None:
    error = refused(copy("llama_tied", tmp_path, tie_word_embeddings=False))
    assert "no tensor lm_head.weight" in error.what
    assert "tie_word_embeddings" in error.why


def test_bad_weight_files_are_named(tmp_path: Path) -> None:
    folder = copy("gemma3_text", tmp_path)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert f"{len(whole)} bytes expected, {len(whole) - 10} found" in refused(folder).what
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "LFS pointer" in refused(folder).what
    weights.write_bytes(struct.pack("<Q", 2) + b"{}")
    assert "no tensor model.embed_tokens.weight" in refused(folder).what
    weights.unlink()
    assert "no weights" in refused(folder).what


def test_missing_tokenizer(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(folder).what
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("")
    assert "AutoTokenizer" in refused(folder).remedy
    (folder / "tokenizer.model").write_bytes(b"x")
    assert facts.read(folder).tokenizer_files == ("tokenizer.model",)


def test_facts_need_no_compiler_and_no_hub_client() -> None:
    code = (
        "import sys; from pathlib import Path; from engine.model import facts, source\n"
        f"from engine import advice, estimate, preset; facts.read(Path({str(GOLDEN / 'llama' / 'hf')!r}))\n"
        "print(sorted({'tvm', 'torch', 'transformers', 'huggingface_hub', 'textual'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
