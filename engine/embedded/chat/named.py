"""The conversation templates that mlc_llm knows by name, as far as this compiler's models use them.

Fields as in mlc_llm's `conversation_template/*.py`, with one change of form: tokens are given by
their text and looked up in the model's own tokenizer, because an id (107 or 106 for Gemma's
`<end_of_turn>`) holds for one tokenizer only.
"""

import difflib
from dataclasses import dataclass

from engine.embedded.chat.conversation import SYSTEM_PLACEHOLDER, Conversation
from engine.errors import UsageError

AUTO, NONE = "auto", "none"
"""The names that are no template: derive it from the model's own; no chat at all, plain text."""


@dataclass(frozen=True, kw_only=True)
class NamedTemplate:
    """One template of mlc_llm. `bos`: prompts begin with BOS as an id; `stops`: tokens by content."""

    user: str
    assistant: str
    tool: str = ""
    system: str = SYSTEM_PLACEHOLDER
    message: str = ""
    add_role: bool = True
    bos: bool = False
    seps: tuple[str, ...] = ("",)
    content: str = "\n"
    empty: str = "\n"
    stop_str: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    strip_reasoning: bool = False

    def conversation(self, name: str, bos_id: int | None) -> Conversation:
        """The template for a tokenizer whose BOS is `bos_id`; stop ids are added by the caller."""
        roles = {"user": self.user, "assistant": self.assistant}
        return Conversation(
            name=name,
            system_template=self.system,
            system_message=self.message,
            system_prefix_token_ids=(bos_id,) if self.bos and bos_id is not None else None,
            add_role_after_system_message=self.add_role,
            roles=roles | ({"tool": self.tool} if self.tool else {}),
            seps=self.seps,
            role_content_sep=self.content,
            role_empty_sep=self.empty,
            stop_str=self.stop_str,
            strip_reasoning_in_history=self.strip_reasoning,
        )


def _chatml(message: str, *stops: str, strip_reasoning: bool = False) -> NamedTemplate:
    return NamedTemplate(
        user="<|im_start|>user",
        assistant="<|im_start|>assistant",
        system=f"<|im_start|>system\n{SYSTEM_PLACEHOLDER}<|im_end|>\n",
        message=message,
        seps=("<|im_end|>\n",),
        stop_str=(*(stop for stop in stops if stop == "<|endoftext|>"), "<|im_end|>"),
        stops=(*stops, "<|im_end|>"),
        strip_reasoning=strip_reasoning,
    )


def _llama3(*stops: str, tool: str = "", stop_str: tuple[str, ...] = ()) -> NamedTemplate:
    header = "<|end_header_id|>\n\n"
    return NamedTemplate(
        user="<|start_header_id|>user",
        assistant="<|start_header_id|>assistant",
        tool=tool,
        system=f"<|start_header_id|>system{header}{SYSTEM_PLACEHOLDER}<|eot_id|>",
        message="You are a helpful, respectful and honest assistant.",
        bos=True,
        seps=("<|eot_id|>",),
        content=header,
        empty=header,
        stop_str=stop_str,
        stops=(*stops, "<|eot_id|>"),
    )


_GEMMA = NamedTemplate(
    user="<start_of_turn>user",
    assistant="<start_of_turn>model",
    bos=True,
    seps=("<end_of_turn>\n",),
    stop_str=("<end_of_turn>",),
    stops=("<eos>", "<end_of_turn>"),
)
_PLAIN = NamedTemplate(user="", assistant="", content="", empty="", bos=True)

NAMED: dict[str, NamedTemplate] = {
    "llama-2": NamedTemplate(
        user="<s>[INST]",
        assistant="[/INST]",
        tool="[INST]",
        system=f"[INST] <<SYS>>\n{SYSTEM_PLACEHOLDER}\n<</SYS>>\n\n",
        message="You are a helpful, respectful and honest assistant.",
        add_role=False,
        bos=True,
        seps=(" ", " </s>"),
        content=" ",
        empty=" ",
        stop_str=("[INST]",),
        stops=("</s>",),
    ),
    "llama-3": _llama3("<|end_of_text|>", stop_str=("<|end_of_text|>", "<|eot_id|>")),
    "llama-3_1": _llama3("<|end_of_text|>", "<|eom_id|>", tool="<|start_header_id|>ipython"),
    "chatml": _chatml(
        "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and "
        "honest answers.",
        "</s>",
    ),
    "chatml_nosystem": NamedTemplate(
        user="<|im_start|>user",
        assistant="<|im_start|>assistant",
        seps=("<|im_end|>\n",),
        stop_str=("<|im_end|>",),
        stops=("</s>", "<|im_end|>"),
    ),
    "qwen2": _chatml("You are a helpful assistant.", "<|endoftext|>"),
    "qwen3": _chatml("You are a helpful assistant.", "<|endoftext|>", strip_reasoning=True),
    "gemma_instruction": _GEMMA,
    "gemma3_instruction": _GEMMA,
    "mistral_default": NamedTemplate(
        user="[INST]",
        assistant="[/INST]",
        tool="[INST]",
        system=f"[INST] {SYSTEM_PLACEHOLDER}",
        message="Always assist with care, respect, and truth. Respond with utmost utility yet securely. "
        "Avoid harmful, unethical, prejudiced, or negative content. Ensure replies promote fairness and "
        "positivity.",
        add_role=False,
        bos=True,
        seps=(" ",),
        content=" ",
        empty="",
        stop_str=("</s>",),
        stops=("</s>",),
    ),
    "phi-2": NamedTemplate(
        user="Instruct",
        assistant="Output",
        seps=("\n",),
        content=": ",
        empty=":",
        stop_str=("<|endoftext|>",),
        stops=("<|endoftext|>",),
    ),
    "phi-3": NamedTemplate(
        user="<|user|>",
        assistant="<|assistant|>",
        system=f"<|system|>\n{SYSTEM_PLACEHOLDER}",
        message="You are a helpful digital assistant. Please provide safe, ethical and accurate information "
        "to the user.",
        bos=True,
        seps=("<|end|>\n",),
        stop_str=("<|endoftext|>",),
        stops=("</s>", "<|endoftext|>", "<|assistant|>", "<|end|>"),
    ),
    "olmo2": NamedTemplate(
        user="<|user|>",
        assistant="<|assistant|>",
        system=f"<|system|>\n{SYSTEM_PLACEHOLDER}\n",
        bos=True,
        seps=("<|endoftext|>\n",),
        stop_str=("<|endoftext|>",),
        stops=("<|endoftext|>",),
    ),
    "redpajama_chat": NamedTemplate(
        user="<human>",
        assistant="<bot>",
        seps=("\n",),
        content=": ",
        empty=":",
        stop_str=("<human>",),
        stops=("<|endoftext|>",),
    ),
    "stablelm-2": NamedTemplate(
        user="<|user|>",
        assistant="<|assistant|>",
        seps=("<|endoftext|>", "<|endoftext|>"),
        stop_str=("<|endoftext|>",),
        stops=("<|endoftext|>",),
    ),
    "tinyllama_v1_0": NamedTemplate(
        user="<|user|>",
        assistant="<|assistant|>",
        system=f"<|system|>\n{SYSTEM_PLACEHOLDER}</s>",
        message="You are a helpful chatbot.",
        seps=("</s>",),
        stop_str=("</s>",),
        stops=("</s>",),
    ),
    "LM": _PLAIN,
}


def named_template(name: str) -> NamedTemplate:
    """The template called `name`; raises UsageError naming the nearest and all known ones."""
    if found := NAMED.get(name):
        return found
    lowered = {known.lower(): known for known in (*NAMED, AUTO, NONE)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    hint = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    raise UsageError(
        f"No conversation template is called {name!r}.{hint}",
        why=f"Known are {', '.join(NAMED)}.",
        remedy=f"Use --conv-template {AUTO}: it takes the template from the model itself.",
    )
