"""Prompts as WebLLM makes them, and chat templates as transformers renders them."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_templates import MODELS

from engine.embedded.chat.conversation import Conversation, js_replace
from engine.embedded.chat.folder import ModelFolder
from engine.embedded.chat.render import ChatTemplate, TemplateFailure
from engine.embedded.chat.tokenizer_info import tokenizer_info

# What `Conversation.getPromptArray` and `getPromptArrayLastRound` of @mlc-ai/web-llm 0.2.86, run in
# node, made of these templates and messages.
RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data" / "webllm_prompts.json").read_text(encoding="utf-8")
)


def conversation(stated: dict[str, Any]) -> Conversation:
    fields = {key: value for key, value in stated.items() if key != "role_templates"}
    return Conversation(**fields)


@pytest.mark.parametrize(
    "recorded", RECORDED, ids=lambda r: f"{r['conv_template']['name']}-{len(r['messages'])}"
)
def test_pieces_are_those_webllm_makes(recorded: dict[str, Any]) -> None:
    known = conversation(recorded["conv_template"])
    assert known.pieces(recorded["messages"]) == recorded["pieces"]
    turns = [message for message in recorded["messages"] if message["role"] != "system"]
    if len(turns) >= 3:
        assert known.pieces(recorded["messages"], start=len(turns) - 1) == recorded["last_round"]


def test_the_recording_covers_what_matters() -> None:
    messages = [message for recorded in RECORDED for message in recorded["messages"]]
    assert any("$&" in m["content"] for m in messages if m["role"] == "system")
    assert any("$" in m["content"] for m in messages if m["role"] == "user")
    assert any(r["conv_template"].get("render_empty_system_message") is False for r in RECORDED)
    assert any(len(r["conv_template"]["seps"]) == 2 for r in RECORDED)
    assert any(r["conv_template"]["add_role_after_system_message"] is False for r in RECORDED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "<plain>"),
        ("$$", "<$>"),
        ("$&", "<{system_message}>"),
        ("$`", "<<>"),
        ("$'", "<>>"),
        ("$1 $<a> $", "<$1 $<a> $>"),
    ],
)
def test_js_replace(text: str, expected: str) -> None:
    assert js_replace("<{system_message}>", "{system_message}", text) == expected


def test_js_replace_fills_one_placeholder_or_none() -> None:
    assert js_replace("no place", "{system_message}", "x") == "no place"
    assert js_replace("{a}{a}", "{a}", "x") == "x{a}"


def test_messages_are_left_as_they_are() -> None:
    chat = [{"role": "user", "content": "$$x$$ {user_message} {function_string} $&"}]
    assert Conversation(name="x").pieces(chat)[0] == chat[0]["content"]
    assert Conversation(name="x").to_json()["role_templates"] == {}


def render(source: str, **tokens: str) -> str:
    return ChatTemplate(source, tokens).render([{"role": "user", "content": "é<&>"}])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),  # trim_blocks and lstrip_blocks
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "é<&>"}'),
        ("{{ {'a': 1} | tojson(indent=1) }}", '{\n "a": 1\n}'),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "é<&>!"),
        ("{{ bos_token }}{{ eos_token }}", "<s>"),  # one that is not set is empty
        ("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}", "TrueTrueTrue"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ nothing_of_this_name }}", ""),
    ],
)
def test_a_template_renders_as_in_transformers(source: str, expected: str) -> None:
    assert render(source, bos_token="<s>") == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", r"line 1"),
        ("{{ messages.append(1) }}", "SecurityError"),  # the environment is immutable
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_failures_say_why(source: str, reason: str) -> None:
    with pytest.raises(TemplateFailure, match=reason):
        render(source)


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_info_is_mlc_llms(name: str) -> None:
    byte_level = name in ("llama_tied", "llama3_rope", "qwen2", "gpt_neox")
    prepends = name in ("llama", "mistral", "phi3")
    assert tokenizer_info(ModelFolder(MODELS[name]).tokenizer_json) == {
        "token_postproc_method": "byte_level" if byte_level else "byte_fallback",
        "prepend_space_in_encode": prepends,
        "strip_space_in_decode": prepends,
    }


def test_tokenizer_info_without_decoder_and_normalizer() -> None:
    assert tokenizer_info({}) == {
        "token_postproc_method": "byte_fallback",
        "prepend_space_in_encode": False,
        "strip_space_in_decode": False,
    }
