"""How faithful a conversation template is: WebLLM's prompt against the model's own rendering.

Both sides are compared as token ids, which is all a model sees, and as text. Each case is tried
with several messages, so that "exact" does not rest on one lucky text. Content keeps its outer
whitespace in WebLLM; where the model's template trims it, `trimmed_roles` says so, and the
messages tried have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine.embedded.chat.conversation import Conversation
from engine.embedded.chat.render import ChatTemplate, Message, TemplateFailure

_SYSTEM = "Answer in one short sentence, please."
_TURNS = (
    ("Hello there, how are you?", "Fine, thanks.", "Why?", "No reason.", "Go on."),
    ("1 + 1\n= 2\n\nright?", "* yes\n* no", "$$x^2$$ and $& {user_message}", "¿Qué? 🙂 Ω", "..."),
)
CASES = {
    "one turn": (1, False),
    "two turns": (3, False),
    "three turns": (5, False),
    "system message, one turn": (1, True),
    "system message, two turns": (3, True),
    "second turn on the kept KV cache": (3, False),
}
"""Each case: how many messages, and whether a system message precedes them; most important first."""
KEPT_CACHE = "second turn on the kept KV cache"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What comparing found. `supported` is false where the model's own template refuses the case.

    `exact`: the same token ids for every chat tried, `matched` for how many of them; `same_text`: the
    same text. `difference` names the first one.
    """

    name: str
    supported: bool
    exact: bool
    same_text: bool
    matched: int = 0
    difference: str = ""


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    """One prompt of a case as the model's own template writes it."""

    messages: tuple[Message, ...]
    text: str
    ids: list[int]


class Reference:
    """The model's own rendering of every case, made once and compared with many candidates."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._prompts: dict[str, list[_Prompt] | str] = {}
        for name, (count, system) in CASES.items():
            try:
                self._prompts[name] = [
                    self._render(template, messages(turns[:count], system)) for turns in _TURNS
                ]
            except TemplateFailure as failure:
                self._prompts[name] = str(failure)

    def _render(self, template: ChatTemplate, chat: tuple[Message, ...]) -> _Prompt:
        text = template.render(chat)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return _Prompt(messages=chat, text=text, ids=ids)

    def compare(self, conversation: Conversation) -> tuple[Case, ...]:
        """One Case per entry of CASES, in that order."""
        return tuple(self._case(name, conversation) for name in CASES)

    def _case(self, name: str, conversation: Conversation) -> Case:
        prompts = self._prompts[name]
        if isinstance(prompts, str):
            reason = f"the model's own template refuses it: {prompts}"
            return Case(name=name, supported=False, exact=False, same_text=False, difference=reason)
        compare = self._kept_cache if name == KEPT_CACHE else self._whole
        found = [compare(prompt, conversation) for prompt in prompts]
        exact = all(same_ids for same_ids, _, _ in found)
        return Case(
            name=name,
            supported=True,
            exact=exact,
            same_text=all(same_text for _, same_text, _ in found),
            matched=sum(same_ids for same_ids, _, _ in found),
            difference="" if exact else next(why for same_ids, _, why in found if not same_ids),
        )

    def _whole(self, prompt: _Prompt, conversation: Conversation) -> tuple[bool, bool, str]:
        ids = conversation.token_ids(prompt.messages, self.tokenizer)
        prefix = self.decode(conversation.system_prefix_token_ids or ())
        text = prefix + "".join(conversation.pieces(prompt.messages))
        return ids == prompt.ids, text == prompt.text, self._difference(prompt, ids, text)

    def _kept_cache(self, prompt: _Prompt, conversation: Conversation) -> tuple[bool, bool, str]:
        """The second turn as WebLLM appends it: what the cache held, the reply, then the new turn."""
        held = conversation.token_ids(prompt.messages[:1], self.tokenizer)
        added = conversation.token_ids(prompt.messages, self.tokenizer, start=2)
        reply = prompt.ids[len(held) : len(prompt.ids) - len(added)]
        exact = (
            prompt.ids[: len(held)] == held
            and prompt.ids[len(prompt.ids) - len(added) :] == added
            and self.decode(reply).removeprefix(" ") == prompt.messages[1]["content"]
        )
        text = "".join(conversation.pieces(prompt.messages, start=2))
        after_reply = prompt.text.partition(prompt.messages[1]["content"])[2]
        lost = after_reply.removesuffix(text)
        why = (
            f"WebLLM does not send {lost!r} after a reply"
            if lost and lost != after_reply
            else f"WebLLM sends {text!r} after a reply, the model expects {after_reply!r}"
        )
        return exact, after_reply == text, "" if exact else why

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def _difference(self, prompt: _Prompt, ids: list[int], text: str) -> str:
        """What stands where the ids part: decoded, or token by token where the text is the same."""
        if ids == prompt.ids:
            return ""
        at = _first_difference(prompt.ids, ids)
        nearby = slice(max(0, at - 4), at + 8)
        own, ours = self.decode(prompt.ids[nearby]), self.decode(ids[nearby])
        if text != prompt.text and own != ours:
            return f"the model's template writes {own!r} where WebLLM sends {ours!r}"
        own_tokens, our_tokens = (
            [self.tokenizer.id_to_token(i) for i in side[at : at + 4]] for side in (prompt.ids, ids)
        )
        return f"WebLLM tokenizes each turn alone, so it sends {our_tokens} for {own_tokens}"


def messages(turns: Sequence[str], system: bool) -> tuple[Message, ...]:
    """User and assistant messages in turn, after a system message where `system`."""
    chat: list[Message] = [{"role": "system", "content": _SYSTEM}] if system else []
    chat += [
        {"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(turns)
    ]
    return tuple(chat)


def trimmed_roles(template: ChatTemplate) -> tuple[str, ...]:
    """The roles whose content the model's template strips of outer whitespace, which WebLLM keeps."""
    chat = messages(("\nQuestion one\n", "\nAnswer one\n", "Question two"), system=False)
    found = []
    for role, content, asked in (
        ("user", "Question one", chat[:1]),
        ("assistant", "Answer one", chat),
        ("system", "Be brief", ({"role": "system", "content": "\nBe brief\n"}, *chat[:1])),
    ):
        try:
            text = template.render(asked)
        except TemplateFailure:
            continue
        if content in text and f"\n{content}\n" not in text:
            found.append(role)
    return tuple(found)


def strips_reasoning(template: ChatTemplate) -> bool:
    """Whether the template drops the <think> block of an earlier reply, as Qwen 3's does."""
    chat = messages(("Question", "<think>\nReasoning\n</think>\n\nAnswer", "Next"), system=False)
    try:
        text = template.render(chat)
    except TemplateFailure:
        return False
    return "Answer" in text and "Reasoning" not in text


def _first_difference(left: Sequence[object], right: Sequence[object]) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
