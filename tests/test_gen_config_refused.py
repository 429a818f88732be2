"""Folders, names and places that gen_config refuses in plain words."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_templates import GOLDEN as MODELS
from gen_config_support import edited, made, read

from engine.artifacts import chat
from engine.artifacts.report import Report
from engine.embedded.__main__ import main
from engine.embedded.gen_config import generate
from engine.errors import StageError, UsageError


def broken(tmp_path: Path, file: str, content: str | None) -> Path:
    source = edited(tmp_path, "llama")
    (source / file).unlink()
    if content is not None:
        (source / file).write_text(content, encoding="utf-8")
    return source


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", "{", "is not valid JSON"),
        ("config.json", "[]", "holds no JSON object"),
        ("config.json", '{"model_type": "llama"}', "does not describe a llama model"),
        ("config.json", '{"model_type": "mamba"}', "'mamba'"),
        ("config.json", {"max_position_embeddings": None}, "does not describe a llama model"),
        ("config.json", {"vocab_size": "many"}, "does not describe a llama model"),
        ("tokenizer.json", '{"added_tokens": ["<s>"]}', "added_tokens that are no tokens"),
        ("tokenizer_config.json", "{", "is not valid JSON"),
        ("generation_config.json", "nonsense", "is not valid JSON"),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{", "is not valid JSON"),
        ("tokenizer.json", "{}", "cannot be loaded"),
        (
            "tokenizer.json",
            '{"added_tokens": [{"content": "<s>", "id": 1}, {"content": "<s>", "id": 2}]}',
            "'<s>' more than once",
        ),
    ],
)
def test_a_broken_folder_is_told_in_plain_words(
    file: str, content: str | dict[str, Any] | None, words: str, tmp_path: Path
) -> None:
    if isinstance(content, dict):
        content = json.dumps(read(MODELS["llama"] / file) | content)
    with pytest.raises(UsageError) as caught:
        generate(broken(tmp_path, file, content), tmp_path / "out", quantization="q0f16")
    assert words in caught.value.what
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_sentencepiece_alone_is_not_enough(tmp_path: Path) -> None:
    source = broken(tmp_path, "tokenizer.json", None)
    (source / "tokenizer.model").write_bytes(b"\x00")
    with pytest.raises(UsageError, match=r"only a SentencePiece tokenizer\.model") as caught:
        generate(source, tmp_path / "out", quantization="q0f16")
    assert "save_pretrained" in caught.value.remedy


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        generate(tmp_path / "nowhere", tmp_path / "out", quantization="q0f16")


def test_an_unknown_quantization(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown quantization 'q4f16'"):
        made("llama", tmp_path, quantization="q4f16")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gemma3-instruction", "'gemma3_instruction'"), ("Auto", "'auto'"), ("lama-2", "'llama-2'")],
)
def test_an_unknown_template_name_has_a_hint(name: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        made("llama", tmp_path, conv_template=name)
    assert f"Did you mean {hint}?" in caught.value.what
    assert "phi-3" in caught.value.why


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("in the way", encoding="utf-8")
    with pytest.raises(StageError, match="Cannot write to"):
        made("llama", target)


def test_errors_have_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gen_config", str(tmp_path / "no"), "--quantization", "q0f16", "-o", str(tmp_path)]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("value", [-1, 10**6, 2**64, "2", True, [-1], []])
def test_ids_that_are_no_tokens_count_as_not_stated(value: object, tmp_path: Path) -> None:
    """Some published models say pad_token_id = -1; runtimes and the checks of an export want tokens."""
    usual = made("llama", tmp_path / "usual").config
    source = edited(tmp_path, "llama", file="generation_config.json", pad_token_id=value, eos_token_id=value)
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    assert generated.config["pad_token_id"] == 0
    assert generated.config["eos_token_id"] == usual["conv_template"]["stop_token_ids"]
    assert generated.config["conv_template"] == usual["conv_template"]
    assert value == [] or any("pad_token_id" in warning for warning in generated.warnings)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_in_every_encoding_that_json_has(encoding: str, tmp_path: Path) -> None:
    """As facts.read takes it: a folder that passes the first look is not refused after the conversion."""
    source = edited(tmp_path, "llama")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        text = (source / name).read_text(encoding="utf-8")
        (source / name).unlink()
        (source / name).write_text(text, encoding=encoding)
    usual = generate(MODELS["llama"], tmp_path / "usual", quantization="q0f16")
    assert generate(source, tmp_path / "out", quantization="q0f16").config == usual.config


def test_half_a_character_is_told(tmp_path: Path) -> None:
    source = broken(tmp_path, "tokenizer_config.json", '{"bos_token": "\\ud800"}')
    with pytest.raises(UsageError, match=r"tokenizer_config\.json is not valid JSON"):
        generate(source, tmp_path / "out", quantization="q0f16")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_no_unicode(tmp_path: Path) -> None:
    source = edited(tmp_path, "llama").rename(tmp_path / os.fsdecode(b"m\xff"))
    out = tmp_path / os.fsdecode(b"o\xff")
    generated = generate(source, out, quantization="q0f16")
    report = Report()
    chat.verify(out, report)
    assert [check for check in report.checks if not check.passed] == []
    assert generated.path == out / "mlc-chat-config.json"
