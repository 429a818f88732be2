"""gen_config against mlc_llm's own output, and what it writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_templates import GOLDEN as MODELS
from conftest import GOLDEN
from gen_config_differences import DIFFERENCES
from gen_config_support import ASKED, edited, made, read

from engine.embedded.__main__ import main
from engine.embedded.families.registry import FAMILIES, family_of
from engine.embedded.gen_config import generate
from engine.embedded.sizes import Sizes
from engine.layout import CONFIG_NAME
from engine.model.config import normalise


def differences(ours: Any, theirs: Any, path: str = "") -> set[str]:
    """The paths at which two JSON values differ; lists are values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {
            found
            for key in {*ours, *theirs}
            for found in differences(ours.get(key, ...), theirs.get(key, ...), f"{path}.{key}".lstrip("."))
        }
    if isinstance(ours, dict) or isinstance(theirs, dict):
        inner, other = (ours, theirs) if isinstance(ours, dict) else (theirs, ours)
        return {found for key in inner for found in differences(inner[key], other, f"{path}.{key}")}
    return set() if ours == theirs else {path}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_config_is_mlc_llms_but_for_what_is_listed(name: str, tmp_path: Path) -> None:
    ours = read(made(name, tmp_path).path)
    theirs = read(GOLDEN / name / "expected" / CONFIG_NAME)
    assert differences(ours, theirs) == set(DIFFERENCES[name])
    # The order of keys too, as far as both have them.
    assert [key for key in ours if key in theirs] == list(theirs)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_webllm_accepts_the_config(name: str, tmp_path: Path) -> None:
    config = read(made(name, tmp_path, sizes=Sizes()).path)
    windows = [config["context_window_size"], config["sliding_window_size"]]
    assert sum(size != -1 for size in windows) == 1
    assert "tokenizer.json" in config["tokenizer_files"]
    for key in ("temperature", "top_p", "repetition_penalty", "frequency_penalty", "presence_penalty"):
        assert isinstance(config[key], float)
    template = config["conv_template"]
    assert len(template["seps"]) in (1, 2)
    assert template["stop_token_ids"]
    assert isinstance(template["stop_str"], list)
    assert {"user", "assistant"} <= set(template["roles"])
    assert 0 < config["prefill_chunk_size"] <= config["context_window_size"]


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("form", ["transformers 4", "transformers 5"])
def test_compile_needs_nothing_but_the_config(name: str, form: str, tmp_path: Path) -> None:
    source = tmp_path / "hf"
    shutil.copytree(
        MODELS[name], source, ignore=shutil.ignore_patterns("*.safetensors"), copy_function=shutil.copyfile
    )
    if form == "transformers 5":
        shutil.copyfile(GOLDEN / name / "config.transformers5.json", source / "config.json")
    written = read(generate(source, tmp_path / "out", quantization="q4f16_1", sizes=ASKED).path)
    original = normalise(read(MODELS[name] / "config.json"))
    family = family_of(original)
    assert FAMILIES[written["model_type"]].spec(written["model_config"]) == family.spec(
        family.model_config(original)
    )
    assert written["model_config"]["context_window_size"] == 256
    assert written["model_config"]["prefill_chunk_size"] == 64


def test_the_windows_of_gemma_3_reach_compile(tmp_path: Path) -> None:
    written = read(made("gemma3_text", tmp_path).path)
    spec = FAMILIES["gemma3_text"].spec(written["model_config"])
    assert [layer.window for layer in spec.layers] == [16, 16, 16, 16, 16, None, 16]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["gen_config", str(MODELS["gemma3_text"] / "config.json"), "--quantization", "q4f16_1"]
    arguments += ["--conv-template", "auto", "--model-type", "auto", "--context-window-size", "256"]
    arguments += ["--sliding-window-size", "-1", "--prefill-chunk-size", "64", "--attention-sink-size", "-1"]
    arguments += ["--tensor-parallel-shards", "1", "--pipeline-parallel-stages", "1"]
    arguments += ["--disaggregation", "false", "--max-batch-size", "1", "-o", str(tmp_path / "a" / "b")]
    assert main(arguments) == 0
    assert read(tmp_path / "a" / "b" / CONFIG_NAME) == made("gemma3_text", tmp_path / "c").config
    printed = capsys.readouterr()
    assert "the model's own prompt in 5 of 5 cases" in printed.err
    assert "note: second turn on the kept KV cache" in printed.err
    assert json.loads(printed.out) == {
        "conv_template": "custom",
        "trimmed_roles": "user, assistant",
        "one turn": "exact",
        "two turns": "exact",
        "three turns": "exact",
        "system message, one turn": "exact",
        "system message, two turns": "exact",
        "second turn on the kept KV cache": "WebLLM does not send '<end_of_turn>\\n' after a reply",
    }


def test_the_command_line_tells_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gen_config", str(MODELS["llama"]), "--quantization", "q0f32", "-o", str(tmp_path)]) == 0
    narrated = capsys.readouterr().err
    assert "the model's own prompt in 3 of 5 cases" in narrated
    assert "warning: system message, one turn: WebLLM tokenizes each turn alone" in narrated


def test_files_are_written_whole_and_nothing_is_left(tmp_path: Path) -> None:
    output = tmp_path / "out"
    generated = made("llama", output)
    assert {path.name for path in output.iterdir()} == set(generated.files)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (output / name).read_bytes() == (MODELS["llama"] / name).read_bytes()
    before = (output / CONFIG_NAME).read_bytes()
    assert made("llama", output).path.read_bytes() == before
    assert before.decode("utf-8").endswith("}\n")


def test_all_tokenizer_files_are_copied_in_mlc_llms_order(tmp_path: Path) -> None:
    source = tmp_path / "hf"
    shutil.copytree(MODELS["qwen2"], source, ignore=shutil.ignore_patterns("config.json"))
    shutil.copyfile(MODELS["llama"] / "config.json", source / "config.json")
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"):
        (source / name).write_text("{}", encoding="utf-8")
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    names = ["tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"]
    assert generated.config["tokenizer_files"] == names


@pytest.mark.parametrize(
    ("stated", "expected", "warned"),
    [
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}, False),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}, False),
        ({"temperature": None}, {"temperature": 1.0}, False),
        ({"top_p": 0}, {"top_p": 1.0}, True),
        ({"repetition_penalty": "high"}, {"repetition_penalty": 1.0}, True),
    ],
)
def test_sampling_defaults(
    stated: dict[str, Any], expected: dict[str, float], warned: bool, tmp_path: Path
) -> None:
    source = edited(tmp_path, "llama", file="generation_config.json", **stated)
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    assert {key: generated.config[key] for key in expected} == expected
    assert any("which cannot be" in warning for warning in generated.warnings) == warned


def test_eos_may_be_a_list_and_must_exist(tmp_path: Path) -> None:
    source = edited(tmp_path, "gemma3_text", file="generation_config.json", eos_token_id=[2, 3, 99999])
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    assert generated.config["conv_template"]["stop_token_ids"] == [2, 3, 5]
    assert generated.config["eos_token_id"] == [2, 3]
    assert any("eos_token_id = [2, 3, 99999] names what is no token" in w for w in generated.warnings)
    assert any("token 99999, which the tokenizer does not have" in w for w in generated.warnings)


def test_files_that_disagree_on_eos_are_told(tmp_path: Path) -> None:
    source = edited(tmp_path, "gemma3_text", file="generation_config.json", eos_token_id=[4, 5])
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    assert generated.config["conv_template"]["stop_token_ids"] == [2, 4, 5]
    assert any(
        "disagree on what ends a reply" in w and "4 '<start_of_turn>'" in w for w in generated.warnings
    )


def test_a_tokenizer_larger_than_the_model_is_told(tmp_path: Path) -> None:
    generated = generate(edited(tmp_path, "llama", vocab_size=375), tmp_path / "out", quantization="q0f16")
    assert any("tokenizer has 376 tokens, the model only 375" in warning for warning in generated.warnings)


@pytest.mark.parametrize(
    ("name", "golden"),
    [("llama-2", "llama"), ("llama-3_1", "llama_tied"), ("gemma3_instruction", "gemma3_text")],
)
def test_a_named_template_has_mlc_llms_texts(name: str, golden: str, tmp_path: Path) -> None:
    ours = made(golden, tmp_path, conv_template=name).config["conv_template"]
    theirs = read(GOLDEN / golden / "expected" / CONFIG_NAME)["conv_template"]
    ids_and_templates = {"system_prefix_token_ids", "stop_token_ids", "role_templates"}
    assert {path.split(".")[0] for path in differences(ours, theirs)} <= ids_and_templates
    # Ids are this tokenizer's: the named tokens it has, and what its own files say.
    assert ours["system_prefix_token_ids"] == [1]
    assert ours["stop_token_ids"] == ([2, 5] if golden == "gemma3_text" else [2])


def test_a_named_template_that_is_not_the_models_is_told(tmp_path: Path) -> None:
    generated = made("llama_tied", tmp_path, conv_template="chatml")
    assert not any(case.exact for case in generated.cases)
    assert any(warning.startswith("one turn") for warning in generated.warnings)


def test_none_is_plain_text(tmp_path: Path) -> None:
    generated = made("llama_tied", tmp_path, conv_template="none")
    template = generated.config["conv_template"]
    assert template["roles"] == {"user": "", "assistant": ""}
    assert template["seps"] == [""]
    assert template["system_prefix_token_ids"] == [1]
    assert generated.cases == ()
