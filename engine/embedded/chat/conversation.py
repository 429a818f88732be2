"""MLC's conversation template, and the prompt WebLLM makes of it.

The rules are those of `Conversation.getPromptArray` and `LLMChatPipeline.getInputData` in
@mlc-ai/web-llm 0.2.86, checked by running its tokenizer:
* a prompt is `system_prefix_token_ids`, then the ids of each piece, tokenized on its own, without
  the special tokens that a post-processor would add; decoding keeps special tokens;
* the pieces are the system text where it is not empty, each message as role + role_content_sep +
  content + seps[position % len(seps)], and last the assistant's role + role_empty_sep;
* without `add_role_after_system_message` the first message after a system text has no role;
* placeholders are filled by JavaScript's String.replace, in which "$&", "$$", "$`" and "$'" of
  the inserted text mean something: no harm comes to messages as long as `role_templates` has no
  entry for their role, so it is written empty (every MLC runtime then uses the content as it is);
* a chat goes on from what the KV cache holds: the next user turn follows the tokens generated,
  without seps of the reply and without its stop token.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from tokenizers import Tokenizer

from engine.embedded.chat.render import Message

SYSTEM_PLACEHOLDER = "{system_message}"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """The fields of MLC's `conv_template` that shape a prompt or end a reply.

    `render_empty_system_message` false is WebLLM's: an empty system message is no text at all.
    """

    name: str
    system_template: str = SYSTEM_PLACEHOLDER
    system_message: str = ""
    system_prefix_token_ids: tuple[int, ...] | None = None
    add_role_after_system_message: bool = True
    render_empty_system_message: bool = True
    roles: dict[str, str] = field(default_factory=lambda: {"user": "", "assistant": ""})
    seps: tuple[str, ...] = ("",)
    role_content_sep: str = ""
    role_empty_sep: str = ""
    stop_str: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    strip_reasoning_in_history: bool = False

    @classmethod
    def from_json(cls, template: Mapping[str, Any]) -> Self:
        """The conversation of a `conv_template` object; fields that shape no prompt are ignored."""
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in template.items() if k in known
        }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The `conv_template` object of mlc-chat-config.json, keys in mlc_llm's order."""
        prefix = self.system_prefix_token_ids
        out: dict[str, Any] = {
            "name": self.name,
            "system_template": self.system_template,
            "system_message": self.system_message,
            "system_prefix_token_ids": None if prefix is None else list(prefix),
            "add_role_after_system_message": self.add_role_after_system_message,
            "roles": dict(self.roles),
            "role_templates": {},
            "messages": [],
            "seps": list(self.seps),
            "role_content_sep": self.role_content_sep,
            "role_empty_sep": self.role_empty_sep,
            "stop_str": list(self.stop_str),
            "stop_token_ids": list(self.stop_token_ids),
            "strip_reasoning_in_history": self.strip_reasoning_in_history,
            "function_string": "",
            "use_function_calling": False,
        }
        if not self.render_empty_system_message:
            out["render_empty_system_message"] = False
        return out

    def system_text(self, message: str | None) -> str:
        """The system piece; None is a chat without a system message, which gets the default one."""
        text = self.system_message if message is None else message
        if text == "" and not self.render_empty_system_message:
            return ""
        return js_replace(self.system_template, SYSTEM_PLACEHOLDER, text)

    def pieces(self, messages: Sequence[Message], *, start: int = 0) -> list[str]:
        """The prompt's pieces for `messages` from the `start`th turn on (the system message apart).

        With `start` > 0 they are what is added to a chat whose earlier turns are in the KV cache.
        """
        stated = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
        turns = messages if stated is None else messages[1:]
        system = self.system_text(stated)
        out = [system] if system and not start else []
        for position, turn in enumerate(turns):
            if position < start:
                continue
            header = self.roles[turn["role"]] + self.role_content_sep
            if position == 0 and system and not self.add_role_after_system_message:
                header = ""
            out.append(header + turn["content"] + self.seps[position % len(self.seps)])
        return [*out, self.roles["assistant"] + self.role_empty_sep]

    def token_ids(self, messages: Sequence[Message], tokenizer: Tokenizer, *, start: int = 0) -> list[int]:
        """The token ids WebLLM feeds for `messages`, reply header included; `start` as in `pieces`."""
        ids = [] if start else list(self.system_prefix_token_ids or ())
        for piece in self.pieces(messages, start=start):
            ids += tokenizer.encode(piece, add_special_tokens=False).ids
        return ids


def js_replace(template: str, placeholder: str, text: str) -> str:
    """JavaScript's `template.replace(placeholder, text)`: the first occurrence, "$" patterns expanded."""
    before, found, after = template.partition(placeholder)
    if not found:
        return template
    meaning = {"$$": "$", "$&": placeholder, "$`": before, "$'": after}
    return before + re.sub(r"\$[$&`']", lambda match: meaning[match[0]], text) + after
