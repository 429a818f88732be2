"""What published models say about chats: templates restated, tokens, stops and sampling, small.

Each `Chat` becomes a model folder on the tokenizer of a golden model of its kind. Tokens that this lacks
stand in tokenizer_config.json alone, as in many folders on the Hub.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat_templates import DATA, GOLDEN

Fields = dict[str, Any]
ALL = ("one turn", "two turns", "three turns", "system message, one turn", "system message, two turns")
TURNS = ALL[:3]


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A chat template (or the name of one in data/chat_templates), and what is expected of the export.

    `eos` and `bos` are tokens, `tokens` those that the golden tokenizer of `base` lacks. `generation` is
    generation_config.json, with tokens for ids. `stops` are the tokens that must end a reply, `exact` the
    cases in which WebLLM's prompt is the model's own, `expected` fields of the conversation template.
    """

    base: str
    template: str
    eos: str
    bos: str | None = None
    tokens: tuple[str, ...] = ()
    generation: Fields = field(default_factory=dict)
    stops: tuple[str, ...]
    exact: tuple[str, ...] = ALL
    expected: Fields = field(default_factory=dict)


_ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"
)
_QWEN = {"pad_token_id": "<|endoftext|>", "eos_token_id": ["<|im_end|>", "<|endoftext|>"]}
_PHI = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + NL + m['content'] + '<|end|>' + NL }}{% endfor %}"
_PHI += "{% if add_generation_prompt %}{{ '<|assistant|>' + NL }}{% else %}{{ eos_token }}{% endif %}"

CHATS: dict[str, Chat] = {
    "meta-llama/Meta-Llama-3-8B-Instruct": Chat(
        base="llama_tied",
        template="{% for m in messages %}"
        "{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim "
        "+ '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        tokens=("<|end_of_text|>",),
        generation={"eos_token_id": ["<|end_of_text|>", "<|eot_id|>"], "temperature": 0.6, "top_p": 0.9},
        stops=("<|end_of_text|>", "<|eot_id|>"),
        expected={"seps": ["<|eot_id|>"]},
    ),
    "meta-llama/Llama-3.2-1B-Instruct": Chat(
        base="llama_tied",
        template="llama-3.1",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        tokens=("<|end_of_text|>", "<|eom_id|>", "<|python_tag|>"),
        generation={
            "eos_token_id": ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
            "temperature": 0.6,
            "top_p": 0.9,
        },
        stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        expected={"system_message": ""},
    ),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": Chat(
        base="llama",
        template=_ZEPHYR,
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        # "<|user|>" is plain text to its tokenizer, which puts a space before every text that it is given.
        exact=("one turn",),
        expected={"system_prefix_token_ids": None},
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Chat(
        base="qwen2",
        template="{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nYou are a made assistant<|im_end|>\\n' }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        bos="<|im_start|>",
        eos="<|im_end|>",
        stops=("<|im_end|>",),
        expected={"system_message": "You are a made assistant"},
    ),
    "mistralai/Mistral-7B-Instruct-v0.1": Chat(
        base="mistral",
        template="{{ bos_token }}{% for m in messages %}"
        "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('turns must alternate') }}{% endif %}{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token + ' ' }}{% endif %}"
        "{% endfor %}",
        bos="<s>",
        eos="</s>",
        stops=("</s>",),
        exact=("one turn",),  # a reply alone has a space before it, which "[/INST]" before it takes away
        expected={"roles": {"user": "[INST] ", "assistant": ""}},
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": Chat(
        base="mistral", template="mistral-0.3", bos="<s>", eos="</s>", stops=("</s>",), exact=TURNS
    ),
    "google/gemma-2b-it": Chat(
        base="gemma",
        template="gemma2",
        bos="<bos>",
        eos="<eos>",
        stops=("<eos>", "<end_of_turn>"),
        exact=TURNS,
    ),
    "google/functiongemma-270m-it": Chat(
        base="gemma3_text",
        template="functiongemma",
        bos="<bos>",
        eos="<eos>",
        tokens=("<start_function_response>",),
        generation={"eos_token_id": ["<eos>", "<start_function_response>"], "top_p": 0.95, "top_k": 64},
        stops=("<eos>", "<end_of_turn>", "<start_function_response>"),
        expected={"system_template": "<start_of_turn>developer\n{system_message}<end_of_turn>\n"},
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": Chat(
        base="qwen2",
        template="qwen2.5",
        eos="<|im_end|>",
        generation=_QWEN | {"repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20},
        stops=("<|im_end|>", "<|endoftext|>"),
        expected={"system_message": "You are a helpful assistant."},
    ),
    "Qwen/Qwen3-0.6B": Chat(
        base="qwen2",
        template="{%- set ns = namespace(last=messages|length - 1) %}"
        "{%- for m in messages[::-1] %}{%- if m.role == 'user' and m.content is string and ns.last < 0 %}"
        "{%- set ns.last = messages|length - 1 - loop.index0 %}{%- endif %}{%- endfor %}"
        "{%- for m in messages %}{%- set text = m.content %}"
        "{%- if m.role == 'assistant' and '</think>' in text and loop.index0 < ns.last %}"
        "{%- set text = text.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
        "{{- '<|im_start|>' + m.role + '\\n' + text + '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
        eos="<|im_end|>",
        tokens=("<think>", "</think>"),
        generation=_QWEN | {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
        stops=("<|im_end|>", "<|endoftext|>"),
        expected={"strip_reasoning_in_history": True, "role_empty_sep": "\n"},
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Chat(
        base="phi3",
        template="deepseek-r1",
        bos="<s>",
        eos="<|end|>",
        generation={"temperature": 0.6, "top_p": 0.95},
        stops=("<|end|>",),
        expected={"role_empty_sep": "<think>\n", "strip_reasoning_in_history": True},
    ),
    "microsoft/Phi-3.5-mini-instruct": Chat(
        base="phi3",
        template=_PHI.replace("NL", "'\\n'"),
        bos="<s>",
        eos="</s>",
        generation={"eos_token_id": ["</s>", "<|assistant|>", "<|end|>"]},
        stops=("</s>", "<|assistant|>", "<|end|>"),
    ),
    "microsoft/Phi-4-mini-instruct": Chat(
        base="qwen2",
        template=_PHI.replace(" + NL", ""),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        generation={"eos_token_id": ["<|end|>", "<|endoftext|>"]},
        stops=("<|end|>", "<|endoftext|>"),
        expected={"role_content_sep": ""},
    ),
    "microsoft/phi-4": Chat(
        base="qwen2",
        template="{% for m in messages %}"
        "{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        bos="<|endoftext|>",
        eos="<|im_end|>",
        tokens=("<|im_sep|>",),
        stops=("<|im_end|>",),
        expected={"role_content_sep": "<|im_sep|>", "role_empty_sep": "<|im_sep|>"},
    ),
    "allenai/OLMo-2-0425-1B-Instruct": Chat(
        base="qwen2",
        template="{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        stops=("<|endoftext|>",),
        expected={"system_prefix_token_ids": [0]},
    ),
    "stabilityai/stablelm-2-zephyr-1_6b": Chat(
        base="qwen2", template=_ZEPHYR, bos="<|endoftext|>", eos="<|endoftext|>", stops=("<|endoftext|>",)
    ),
    "microsoft/DialoGPT-medium": Chat(
        base="qwen2",
        template="{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        stops=("<|endoftext|>",),
        expected={"roles": {"user": "", "assistant": "", "tool": ""}, "seps": ["<|endoftext|>"]},
    ),
}


def folder_of(target: Path, chat: Chat) -> Path:
    """A model folder, weights apart, in the new folder `target`."""
    source = GOLDEN[chat.base]
    target.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(source / name, target / name)
    tokenizer = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    first = len(tokenizer["model"]["vocab"])
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    added = {str(first + i): {"content": token, **flags} for i, token in enumerate(chat.tokens)}
    ids |= {token: first + i for i, token in enumerate(chat.tokens)}
    file = DATA / "chat_templates" / f"{chat.template}.jinja"
    template = file.read_text(encoding="utf-8") if len(chat.template) < 40 else chat.template
    stated = {"added_tokens_decoder": added, "bos_token": chat.bos, "eos_token": chat.eos}
    stated |= {"chat_template": template, "tokenizer_class": "PreTrainedTokenizerFast"}
    write(target / "tokenizer_config.json", stated)
    generation = dict(chat.generation)
    for key in ("eos_token_id", "pad_token_id"):
        if key in generation:
            tokens = generation[key]
            generation[key] = [ids[t] for t in tokens] if isinstance(tokens, list) else ids[tokens]
    write(target / "generation_config.json", generation)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    write(
        target / "config.json",
        config | {"eos_token_id": ids[chat.eos], "bos_token_id": ids.get(chat.bos or "")},
    )
    return target


def write(path: Path, value: Any) -> None:
    """Write `value` as JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")
