"""Which conversation template an export gets, and what is to be said about it."""

import dataclasses
from dataclasses import dataclass

from engine.embedded.chat.check import KEPT_CACHE, Case, Reference, trimmed_roles
from engine.embedded.chat.conversation import Conversation
from engine.embedded.chat.derive import Outline, derive, outline
from engine.embedded.chat.folder import ModelFolder
from engine.embedded.chat.named import AUTO, NAMED, NONE, named_template
from engine.embedded.chat.render import FROZEN_DATE, ChatTemplate, TemplateFailure
from engine.embedded.chat.tokens import bos_token, completion_prefix, stops
from engine.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A conversation template, with what is known about it.

    `cases` compare it with the model's own chat template, empty where there is none to compare
    with. `trimmed_roles` are those whose content the model's template strips and WebLLM keeps.
    """

    conversation: Conversation
    cases: tuple[Case, ...]
    trimmed_roles: tuple[str, ...]
    warnings: tuple[str, ...]


def choose_conversation(folder: ModelFolder, name: str = AUTO) -> Choice:
    """The template called `name`: "auto" from the model's chat template, "none" for plain text, or mlc_llm's.

    Raises UsageError for a name that is none of them, for a folder without a usable tokenizer, and for
    "auto" where the model has a chat template that cannot be used.
    """
    if name not in (AUTO, NONE):
        named_template(name)
    template, warnings = _template(folder, name)
    after_reply = ""
    cases: tuple[Case, ...] = ()
    extra: tuple[str, ...] = ()
    bos = bos_token(folder)
    if name in NAMED:
        known = NAMED[name]
        conversation, extra = known.conversation(name, bos[1] if bos else None), known.stops
        if known.bos and not bos:
            warnings.append(f"template {name} begins with a BOS token, which this tokenizer does not have")
        if template:
            after_reply = outline(template).after_reply
            cases = Reference(template, folder.tokenizer).compare(conversation)
    elif template:
        conversation, cases, found = derive(
            template, folder.tokenizer, bos=bos, added_tokens=folder.added_tokens
        )
        if found.multi_turn:
            sep = conversation.seps[-1]
            after_reply = sep if sep.strip() else found.after_reply
        if found.system is None:
            warnings.append(
                "the model's chat template has no system role: a system message goes to the head of the "
                "first user turn"
            )
    else:
        conversation = Conversation(name="LM", system_prefix_token_ids=completion_prefix(folder) or None)
    trimmed = trimmed_roles(template) if template else ()
    if template and template.wrote_date:
        warnings.append(
            f"the model's chat template writes today's date; the export always says {FROZEN_DATE:%d %B %Y}"
        )
    warnings += _told(cases)
    ends = stops(folder, after_reply, extra)
    conversation = dataclasses.replace(
        conversation,
        stop_str=tuple(dict.fromkeys((*conversation.stop_str, *ends.strings))),
        stop_token_ids=ends.ids,
    )
    return Choice(
        conversation=conversation,
        cases=cases,
        trimmed_roles=trimmed,
        warnings=(*warnings, *ends.warnings),
    )


def _template(folder: ModelFolder, name: str) -> tuple[ChatTemplate | None, list[str]]:
    """The model's chat template if it has one and the template `name` can be compared, and what to say.

    Raises UsageError where "auto" asks for one that cannot be used: plain text is not what the model knows.
    """
    if name == NONE:
        return None, []
    source = folder.chat_template
    if source is None and folder.named_templates and name == AUTO:
        raise UsageError(
            f"The model has the chat templates {', '.join(folder.named_templates)}, and none is the default.",
            why="Which of them a chat is written by is the caller's choice in transformers.",
            remedy='Name one of them "default" in tokenizer_config.json, or set model.conv_template.',
        )
    if source is None:
        plain = "prompts will be plain text, without turns; --conv-template NAME sets a known template"
        return None, [f"the model has no chat template: {plain}"]
    try:
        template = ChatTemplate(source, folder.special_tokens)
        found = outline(template)
    except TemplateFailure as failure:
        if name != AUTO:
            return None, [f"the model's own chat template cannot be compared with: {failure}"]
        raise UsageError(
            f"The model's chat template cannot be used: {failure}.",
            why="Without its turns a chat model writes nonsense.",
            remedy="Set model.conv_template (--conv-template) to a template by name, or to none for text "
            "without turns.",
        ) from failure
    header = _reply_header(template, found)
    if not header:
        return template, []
    template.reply_header = header
    told = f"the model's chat template writes no header for the reply to come; the export writes {header!r}"
    return template, [f"{told}, as it stands before every earlier reply"]


def _reply_header(template: ChatTemplate, found: Outline) -> str:
    """What stands before an earlier reply, where a template that knows no generation prompt leaves it out."""
    question = [{"role": "user", "content": "Question"}]
    if template.render(question) != template.render(question, add_generation_prompt=False):
        return ""
    header = found.after_user.removeprefix(found.generation)
    return header if header != found.after_user and header.strip() else ""


def _told(cases: tuple[Case, ...]) -> list[str]:
    """One line for each way in which cases differ though the model's template has them."""
    told: dict[str, list[str]] = {}
    for case in cases:
        if case.supported and not case.exact and case.name != KEPT_CACHE:
            told.setdefault(case.difference, []).append(case.name)
    return [f"{'; '.join(names)}: {difference}" for difference, names in told.items()]
