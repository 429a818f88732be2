"""Chats of published models: BOS once, system message, every stop; and odd folders of tokenizer files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_templates import GOLDEN
from published_chats import CHATS, Chat, folder_of, write
from tokenizers import Tokenizer

from engine.backends.embedded import EmbeddedBackend
from engine.embedded.chat.check import messages
from engine.embedded.chat.choose import choose_conversation
from engine.embedded.chat.conversation import Conversation
from engine.embedded.chat.folder import ModelFolder
from engine.embedded.gen_config import Generated, generate
from engine.errors import UsageError
from engine.model import facts
from engine.plan import ExportPlan


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes one out."""
    stated = (read(path) if path.is_file() else {}) | changes
    write(path, {key: value for key, value in stated.items() if value is not None})


def exported(folder: Path) -> tuple[Generated, Tokenizer]:
    """What gen_config makes of a folder, and the tokenizer as it was written."""
    out = folder.parent / "out"
    generated = generate(folder, out, quantization="q0f16")
    return generated, Tokenizer.from_file(str(out / "tokenizer.json"))


@pytest.mark.parametrize("name", CHATS)
def test_a_published_chat(name: str, tmp_path: Path) -> None:
    chat = CHATS[name]
    generated, tokenizer = exported(folder_of(tmp_path / "hf", chat))
    template = generated.config["conv_template"]
    assert (
        tuple(case.name for case in generated.cases if case.exact and "cache" not in case.name) == chat.exact
    )
    stops = {tokenizer.id_to_token(number) for number in template["stop_token_ids"]}
    assert stops == set(chat.stops)
    assert template["stop_str"] == []
    assert {key: template[key] for key in chat.expected} == chat.expected
    for key in ("temperature", "top_p", "repetition_penalty"):
        assert generated.config[key] == chat.generation.get(key, 1.0)
    # A prompt begins as the model's own does, with BOS once or not at all, and special tokens are one token.
    source = ModelFolder(tmp_path / "hf").chat_template or ""
    conversation = Conversation.from_json(template)
    for turns in (1, 3):
        ids = conversation.token_ids(messages(("Hi", "Ho", "Hu")[:turns], system=False), tokenizer)
        if chat.bos and chat.bos != chat.eos:
            assert ids.count(tokenizer.token_to_id(chat.bos)) == (
                1 if "bos_token" in source else source.count(chat.bos) and ids.count(ids[0])
            )
        for token in chat.tokens:
            prompt = "".join(conversation.pieces(messages(("Hi", "Ho", "Hu")[:turns], system=False)))
            assert ids.count(tokenizer.token_to_id(token)) == prompt.count(token)


# Tokenizer files


def made(tmp_path: Path, **changes: Any) -> Path:
    """A folder of the kind of Qwen 2.5's, with fields of tokenizer.json changed."""
    folder = folder_of(tmp_path / "hf", CHATS["Qwen/Qwen2.5-0.5B-Instruct"])
    edit(folder / "tokenizer.json", **changes)
    return folder


TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 64},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "<|endoftext|>",
}


@pytest.mark.parametrize("field", ["truncation", "padding"])
def test_what_training_left_in_a_tokenizer_cuts_no_chat(field: str, tmp_path: Path) -> None:
    value = {"truncation": TRUNCATION, "padding": PADDING}[field]
    generated, tokenizer = exported(made(tmp_path, **{field: value}))
    assert any("as in training; the export's does not" in warning for warning in generated.warnings)
    text = "a question of more than four tokens"
    plain = Tokenizer.from_file(str(GOLDEN["qwen2"] / "tokenizer.json")).encode(text).ids
    assert len(plain) > 4
    assert tokenizer.encode(text).ids == plain
    assert [case.exact for case in generated.cases] == [True] * 6


@pytest.mark.parametrize("place", ["tokenizer_config.json", "added_tokens.json"])
def test_tokens_that_only_another_file_names_are_tokens_of_the_export(place: str, tmp_path: Path) -> None:
    folder = made(tmp_path)
    stated = read(folder / "tokenizer.json")
    stated["added_tokens"] = stated["added_tokens"][:1]  # ChatML's tokens are in the vocabulary alone
    write(folder / "tokenizer.json", stated)
    split = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert len(split.encode("<|im_start|>").ids) > 1
    if place == "tokenizer_config.json":
        decoder = {
            str(i): {"content": t, "special": True} for i, t in ((1, "<|im_start|>"), (2, "<|im_end|>"))
        }
        edit(folder / place, added_tokens_decoder=decoder)
    else:
        edit(folder / "tokenizer_config.json", added_tokens_decoder=None)
        write(folder / place, {"<|im_start|>": 1, "<|im_end|>": 2})
    generated, tokenizer = exported(folder)
    assert tokenizer.encode("<|im_start|>user").ids[0] == 1
    assert set(generated.config["conv_template"]["stop_token_ids"]) == {0, 2}
    assert any("lacks '<|im_start|>', '<|im_end|>'" in warning for warning in generated.warnings)


def test_a_token_that_cannot_have_its_id_is_refused_where_prompts_have_it(tmp_path: Path) -> None:
    folder = made(tmp_path)
    config = folder / "tokenizer_config.json"
    names = {"376": "<one>", "380": "<new>", "381": "<other>"}
    edit(config, added_tokens_decoder={number: {"content": token} for number, token in names.items()})
    generated, tokenizer = exported(folder)  # as a padding token that nothing ever writes
    assert any("lacks '<one>', which belong" in warning for warning in generated.warnings)
    assert any("lacks '<new>' (380), '<other>' (381), which cannot" in w for w in generated.warnings)
    assert [tokenizer.token_to_id(token) for token in names.values()] == [376, None, None]
    edit(config, chat_template="{{ messages[0].content }}<new>")
    with pytest.raises(UsageError, match=r"lacks the token '<new>', .* the id 380; added, it gets 377"):
        exported(folder)


def test_a_prompt_of_tokens_without_rows_is_refused(tmp_path: Path) -> None:
    """ChatML's tokens added to a tokenizer, and weights that nobody resized."""
    folder = folder_of(tmp_path / "hf", CHATS["microsoft/phi-4"])
    edit(folder / "config.json", vocab_size=376)
    with pytest.raises(UsageError, match=r"the token '<\|im_sep\|>' of id 376, .*has 376 tokens"):
        exported(folder)


def test_a_tokenizer_as_it_is_is_copied_as_it_is(tmp_path: Path) -> None:
    folder = made(tmp_path)
    exported(folder)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_folder_with_a_sentencepiece_model_alone_is_refused_before_its_weights_are_converted(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(GOLDEN["llama_tied"], folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    found = facts.read(folder)
    with pytest.raises(UsageError, match=r"no tokenizer\.json, only a SentencePiece tokenizer\.model"):
        EmbeddedBackend().cover(ExportPlan(source=str(folder), quantization="q0f16"), found)


def test_a_reply_that_ends_at_ordinary_text_is_told(tmp_path: Path) -> None:
    """As where a fine-tune of Gemma 3 keeps 107, a line end there, of Gemma's first list of EOS."""
    folder = made(tmp_path)
    number = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("a")
    edit(folder / "generation_config.json", eos_token_id=[2, number])
    generated, _ = exported(folder)
    assert any(f"ends replies at {number} 'a', a piece of ordinary text" in w for w in generated.warnings)


# Special tokens that no file states


@pytest.mark.parametrize("stated", [{"tokenizer_class": "GPT2Tokenizer"}, {"tokenizer_class": None}])
def test_what_a_tokenizers_class_knows_needs_no_file(stated: dict[str, Any], tmp_path: Path) -> None:
    """DialoGPT's tokenizer_config.json has a chat template, which writes EOS, and no EOS."""
    folder = folder_of(tmp_path / "hf", CHATS["microsoft/DialoGPT-medium"])
    edit(folder / "config.json", model_type="gpt2", n_embd=64, n_layer=2, n_head=2, n_positions=128)
    edit(folder / "tokenizer_config.json", bos_token=None, eos_token=None, **stated)
    choice = choose_conversation(ModelFolder(folder))
    assert choice.conversation.seps == ("<|endoftext|>",)
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert ModelFolder(folder).special_tokens == {}


def test_special_tokens_map_counts_where_transformers_reads_it(tmp_path: Path) -> None:
    folder = made(tmp_path)
    write(folder / "special_tokens_map.json", {"eos_token": {"content": "<|im_start|>", "lstrip": False}})
    assert ModelFolder(folder).special_tokens["eos_token"] == "<|im_end|>"
    edit(folder / "tokenizer_config.json", added_tokens_decoder=None)
    assert ModelFolder(folder).special_tokens["eos_token"] == "<|im_start|>"
    edit(folder / "special_tokens_map.json", eos_token=None)
    assert ModelFolder(folder).special_tokens["eos_token"] == "<|im_end|>"


# Chat templates


def test_a_template_without_a_generation_prompt_gets_the_header_of_its_replies(tmp_path: Path) -> None:
    """ChatML as fine-tunes of 2023 have it; the model would begin its reply with a header of its own."""
    turns = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    chat = Chat(base="qwen2", template=turns + "{% endfor %}", eos="<|im_end|>", stops=("<|im_end|>",))
    generated, _ = exported(folder_of(tmp_path / "hf", chat))
    template = generated.config["conv_template"]
    assert template["roles"]["assistant"] + template["role_empty_sep"] == "<|im_start|>assistant\n"
    assert sum(case.exact for case in generated.cases) == 5
    assert any("writes no header for the reply to come" in warning for warning in generated.warnings)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json"])
def test_several_templates_and_none_the_default(place: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "hf", CHATS["Qwen/Qwen3-0.6B"])
    named = [{"name": name, "template": "{{ messages[0].content }}"} for name in ("tool_use", "rag")]
    edit(folder / "tokenizer_config.json", chat_template=None)
    edit(folder / place, chat_template=named)
    with pytest.raises(UsageError, match="has the chat templates tool_use, rag, and none is the default"):
        exported(folder)
    assert generate(folder, tmp_path / "named", quantization="q0f16", conv_template="chatml").config
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 1 / 0 }}")
    (folder / "chat_template.jinja").write_text("{{ '[' + messages[0].content + ']' }}")
    conversation = choose_conversation(ModelFolder(folder)).conversation
    assert "".join(conversation.pieces(messages(("a",), system=False))) == "[a]"
