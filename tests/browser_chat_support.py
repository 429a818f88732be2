"""A chat of two turns in WebLLM whose words are chosen, and every token that it feeds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from browser.harness import Page
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.embedded.chat.conversation import Conversation


@dataclass(frozen=True, kw_only=True)
class Chat:
    """`prompt` is the first turn's, `fed` all tokens in order; `logits[i]` are those after `fed[at[i]]`."""

    first: list[dict[str, Any]]
    prompt: list[int]
    fed: list[int]
    at: list[int]
    logits: list[NDArray[np.float32]]


def two_turns(page: Page, folder: Path, words: str) -> Chat:
    """Ask twice the model of `folder` that is loaded in `page`; `words` are what it says, both times."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "mlc-chat-config.json").read_text(encoding="utf-8"))
    conversation = Conversation.from_json(config["conv_template"])
    # Greedy tokens of random weights need not be text: what is said is chosen here. A reply that
    # ends with its stop token stays in the KV cache; the stop token itself is never fed.
    said = tokenizer.encode(words, add_special_tokens=False).ids
    reply = [*said, conversation.stop_token_ids[0]]
    first = [{"role": "user", "content": "What are the colours of the sky?"}]
    one = page.chat(first, force=reply, temperature=0)
    assert (one.tokens, one.finish_reason) == (reply, "stop")
    second = [*first, {"role": "assistant", "content": one.text}, {"role": "user", "content": "Say why."}]
    two = page.chat(second, force=reply, temperature=0)

    prompt = conversation.token_ids(first, tokenizer)
    follow = conversation.token_ids(second, tokenizer, start=2)
    begins = (len(prompt) - 1, len(prompt) + len(said) + len(follow) - 1)
    return Chat(
        first=first,
        prompt=prompt,
        fed=[*prompt, *said, *follow, *said],
        at=[begin + i for begin in begins for i in range(len(reply))],
        logits=[*one.logits, *two.logits],
    )
