"""MLC's conversation template, derived from what the model's own chat template renders.

1. Outline. A chat of sentinel messages is rendered; the constant texts around the sentinels are
   all that a chat template says: what comes before the first user message (with and without a
   system message), between user and assistant, between assistant and user, and at the end.
2. Candidates. MLC writes a turn as role + role_content_sep + content + sep and tokenizes it alone.
   Where the constant texts are cut into these fields does not change the joined text, but it
   decides what is tokenized together and what a kept KV cache lacks. Every sensible cut is tried.
3. Choice. Each candidate's prompts are compared with the model's own (check.py); the one that is
   right in the most important cases wins, the plainest among equals.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer

from engine.embedded.chat.check import Case, Reference, strips_reasoning
from engine.embedded.chat.conversation import SYSTEM_PLACEHOLDER, Conversation
from engine.embedded.chat.render import ChatTemplate, Message, TemplateFailure

_SYSTEM, _USER, _REPLY, _NEXT = "SentinelSystem", "SentinelQuestion", "SentinelReply", "SentinelNext"


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The constant texts of a chat template.

    `begin` + question + `generation` is a chat of one turn; question + `after_user` + reply +
    `after_reply` + question is what follows. `system` is what surrounds a system message, up to the
    question; None where the template has no place for one. Without `multi_turn` the template refuses a
    second turn, and what stands between turns is guessed from the only one.
    """

    begin: str
    generation: str
    after_user: str
    after_reply: str
    system: tuple[str, str] | None
    multi_turn: bool


def outline(template: ChatTemplate) -> Outline:
    """Render sentinels and cut the renderings at them.

    Raises TemplateFailure when not even one user message can be rendered and found again.
    """
    question: Message = {"role": "user", "content": _USER}
    begin, generation = _split(template, [question], _USER)
    multi_turn = True
    try:
        chat: list[Message] = [question, {"role": "assistant", "content": _REPLY}]
        chat.append({"role": "user", "content": _NEXT})
        _, after_user, after_reply, _ = _split(template, chat, _USER, _REPLY, _NEXT)
    except TemplateFailure:
        after_user, after_reply, multi_turn = generation, begin, False
    system = None
    try:
        before, between, _ = _split(
            template, [{"role": "system", "content": _SYSTEM}, question], _SYSTEM, _USER
        )
        system = (before, between)
    except TemplateFailure:
        pass
    return Outline(
        begin=begin,
        generation=generation,
        after_user=after_user,
        after_reply=after_reply,
        system=system,
        multi_turn=multi_turn,
    )


def _split(template: ChatTemplate, chat: list[Message], *sentinels: str) -> list[str]:
    text = template.render(chat)
    parts = re.split("|".join(sentinels), text)
    if re.findall("|".join(sentinels), text) != list(sentinels):
        raise TemplateFailure("it does not write every message once, in order")
    return parts


def derive(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    bos: tuple[str, int] | None,
    added_tokens: Mapping[str, int],
) -> tuple[Conversation, tuple[Case, ...], Outline]:
    """The best conversation template for `template`, what it reproduces, and the outline it is from.

    `bos` is the BOS token and its id, `added_tokens` the tokens matched whole. Stops are not set.
    Raises TemplateFailure when the chat template cannot render one user message.
    """
    found = outline(template)
    reference = Reference(template, tokenizer)
    texts = "".join(
        (found.begin, found.generation, found.after_user, found.after_reply, *(found.system or ()))
    )
    markers = sorted((m for m in added_tokens if m.strip() and m in texts), key=len, reverse=True)
    best: tuple[tuple[tuple[int, ...], int], Conversation, tuple[Case, ...]] | None = None
    for candidate in _candidates(found, tokenizer, bos, markers):
        cases = reference.compare(candidate)
        merit = (
            tuple(case.matched for case in cases) + tuple(case.same_text for case in cases),
            -len(candidate.seps),
        )
        if best is None or merit > best[0]:  # candidates come plainest first
            best = (merit, candidate, cases)
    assert best is not None
    chosen = dataclasses.replace(
        best[1],
        roles=best[1].roles | _tool_role(template, best[1], found.generation),
        strip_reasoning_in_history=strips_reasoning(template),
    )
    return chosen, best[2], found


def _tool_role(template: ChatTemplate, conversation: Conversation, generation: str) -> dict[str, str]:
    """The role of tool messages, where the template writes them as turns like any other."""
    chat: list[Message] = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _REPLY}]
    chat.append({"role": "tool", "content": _NEXT})
    try:
        _, _, header, tail = _split(template, chat, _USER, _REPLY, _NEXT)
    except TemplateFailure:
        return {}
    sep, content_sep = conversation.seps[-1], conversation.role_content_sep
    if tail != generation or not (header.startswith(sep) and header.endswith(content_sep)):
        return {}
    return {"tool": header.removeprefix(sep).removesuffix(content_sep)}


def _candidates(
    found: Outline, tokenizer: Tokenizer, bos: tuple[str, int] | None, markers: list[str]
) -> Iterator[Conversation]:
    for start in _starts(found, tokenizer, bos, markers):
        header = start.header
        if found.after_reply.endswith(header):
            after_reply = found.after_reply.removesuffix(header)
        else:
            after_reply = found.after_reply.removesuffix(_common_suffix(header, found.after_reply))
        tail = _tidy(_common_suffix(header, found.after_user), markers)
        for content_sep in dict.fromkeys((tail, "")):
            opening = found.after_user.removesuffix(content_sep)
            shared = _common_prefix(opening, found.generation)
            for at in _cuts(shared, markers, prefer=after_reply):
                seps = (shared[:at], after_reply)
                plain = Conversation(
                    name="custom",
                    system_template=start.system_template,
                    system_message=start.system_message,
                    system_prefix_token_ids=start.prefix or None,
                    add_role_after_system_message=start.add_role,
                    render_empty_system_message=start.render_empty,
                    roles={"user": header.removesuffix(content_sep), "assistant": shared[at:]},
                    seps=seps[:1] if seps[0] == seps[1] else seps,
                    role_content_sep=content_sep,
                    role_empty_sep=found.generation[len(shared) :],
                )
                yield plain
                # A tokenizer may put a space before every text it is given: then the one here is too much.
                spaced = [role for role, text in plain.roles.items() if text.startswith(" ")]
                for drop in (spaced, *([role] for role in spaced)) if spaced else ():
                    fewer = {role: text[role in drop :] for role, text in plain.roles.items()}
                    yield dataclasses.replace(plain, roles=fewer)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """How a chat may begin: `header` is the user's role + role_content_sep, the rest as in Conversation."""

    header: str
    prefix: tuple[int, ...]
    system_template: str
    system_message: str = ""
    add_role: bool = True
    render_empty: bool = True


def _starts(
    found: Outline, tokenizer: Tokenizer, bos: tuple[str, int] | None, markers: list[str]
) -> Iterator[_Start]:
    begin, system = found.begin, found.system
    prefix: tuple[int, ...] = ()
    if bos and begin.startswith(bos[0]):
        # As an id, so that no tokenizer can make it two, or join it with what follows.
        begin, prefix = begin.removeprefix(bos[0]), (bos[1],)
        system = system and (system[0].removeprefix(bos[0]), system[1])

    if system and len(begin) >= len(system[0] + system[1]):
        before, after = system
        if begin.startswith(before) and begin.endswith(after):
            # A system text is always there: the template's default is ours.
            default = begin[len(before) : len(begin) - len(after)]
            common = _common_suffix(after, found.after_reply)
            for at in _cuts(common, markers):
                yield _Start(
                    header=common[at:],
                    prefix=prefix,
                    system_template=before + SYSTEM_PLACEHOLDER + after.removesuffix(common[at:]),
                    system_message=default,
                )
            return

    if found.after_reply.endswith(begin):
        header = begin
    else:
        # Something stands only before the first turn: constant text can be given as ids.
        header = _common_suffix(begin, found.after_reply)
        marker = min((header.find(m) for m in markers if m in header), default=-1)
        header = header[marker:] if marker > 0 else header
        preamble = begin.removesuffix(header)
        prefix += tuple(tokenizer.encode(preamble, add_special_tokens=False).ids)
        system = system and (system[0].removeprefix(preamble), system[1])
    if system is None:
        # No place for a system message: at the head of the first user turn, as Gemma 3 has it.
        system = (header, "\n\n")
    before, after = system
    separate = bool(header) and after.endswith(header)
    yield _Start(
        header=header,
        prefix=prefix,
        system_template=before + SYSTEM_PLACEHOLDER + (after.removesuffix(header) if separate else after),
        add_role=separate,
        render_empty=False,
    )


def _cuts(text: str, markers: list[str], prefer: str | None = None) -> list[int]:
    """Where `text` may be cut: its ends, around markers, and where whitespace begins or ends.

    First the cut after `prefer`, which makes both seps one, then from left to right; never inside
    a marker.
    """
    pattern = "|".join([*map(re.escape, markers), r"\s+", r"[^\s<\[]+", "."])
    places = [0, *(match.end() for match in re.finditer(pattern, text, re.DOTALL))]
    if prefer and text.startswith(prefer) and len(prefer) in places:
        places.insert(0, len(prefer))
    return list(dict.fromkeys(places))


def _tidy(suffix: str, markers: list[str]) -> str:
    """The end of `suffix` made of whole markers, whitespace and colons: no word is cut in two."""
    whole = re.search("(?:" + "|".join([*map(re.escape, markers), r"[\s:]"]) + ")*$", suffix)
    return whole[0] if whole else ""


def _common_prefix(left: str, right: str) -> str:
    count = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    return left[: min(len(left), len(right)) if count is None else count]


def _common_suffix(left: str, right: str) -> str:
    return _common_prefix(left[::-1], right[::-1])[::-1]
