"""tokenizer.json as transformers uses it, which is not always as it is written.

WebLLM and MLC read this file alone and as it is. transformers ignores the truncation and padding that a
training run may have left in it, and adds the tokens that tokenizer_config.json (or, without those, the
older added_tokens.json) names and it lacks (`tokenization_utils_base.py`, `_from_pretrained`). What
transformers does on loading is done here once, for the export.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from engine.errors import UsageError
from engine.model.files import some

JSON = Mapping[str, Any]
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, kw_only=True)
class TokenizerFile:
    """A tokenizer, the JSON that it is written as, and in words how that differs from the file."""

    tokenizer: Tokenizer
    content: dict[str, Any]
    changes: tuple[str, ...]


def tokenizer_of(
    path: Path, stated: JSON, named: Mapping[str, tuple[int, JSON]], chat_template: str
) -> TokenizerFile:
    """The tokenizer of `path`, whose content is `stated`; `named` are the tokens that it ought to have.

    `named` gives each token's id and flags, as `named_tokens` does. One that cannot have its id is left
    out, unless `chat_template` writes it.
    Raises UsageError for a file that does not load, and for a token of the chat template that cannot have
    its id: the embedding's row would be another one's.
    """
    content, changes = dict(stated), []
    for key, what in (("truncation", "cuts texts short"), ("padding", "pads texts")):
        if content.get(key):
            content[key] = None
            changes.append(f"tokenizer.json {what}, as in training; the export's does not")
    known = {token["content"] for token in content.get("added_tokens") or ()}
    wanted = sorted((number, token) for token, (number, _) in named.items() if token not in known)
    tokenizer = _loaded(path, json.dumps(content) if changes else None)
    lacking = wanted
    while lacking and (wrong := _added(tokenizer, lacking, named)):
        for number, token, found in wrong:
            if token in chat_template:
                raise _wrong_id(path, token, number, found)
        wrong_tokens = {token for _, token, _ in wrong}
        lacking = [item for item in lacking if item[1] not in wrong_tokens]
        tokenizer = _loaded(path, json.dumps(content))
    if lacking:
        content = json.loads(tokenizer.to_str())
        tokens = some([repr(token) for _, token in lacking])
        changes.append(f"tokenizer.json lacks {tokens}, which belong to it; the export's has them")
    if left_out := [item for item in wanted if item not in lacking]:
        tokens = some([f"{token!r} ({number})" for number, token in left_out])
        changes.append(f"tokenizer.json lacks {tokens}, which cannot have these ids: left out")
    return TokenizerFile(tokenizer=tokenizer, content=content, changes=tuple(changes))


def _loaded(path: Path, content: str | None) -> Tokenizer:
    """The tokenizer of `content`, of the file where that is None."""
    try:
        # Not by name: the binding takes no path that is not Unicode.
        return Tokenizer.from_buffer(path.read_bytes() if content is None else content.encode())
    except Exception as error:  # the binding raises plain Exception
        raise UsageError(
            f"{path} cannot be loaded: {error}",
            remedy="Download the file again, or update the tokenizers package.",
        ) from error


def _added(
    tokenizer: Tokenizer, tokens: list[tuple[int, str]], named: Mapping[str, tuple[int, JSON]]
) -> list[tuple[int, str, int]]:
    """Add `tokens`; those whose id is another one then: stated id, content, found id."""
    for _, token in tokens:
        tokenizer.add_tokens([AddedToken(token, **named[token][1])])
    found = [(number, token, int(tokenizer.token_to_id(token) or 0)) for number, token in tokens]
    return [item for item in found if item[0] != item[2]]


def _wrong_id(path: Path, token: str, number: int, found: int) -> UsageError:
    return UsageError(
        f"{path} lacks the token {token!r}, which the files beside it give the id {number}; "
        f"added, it gets {found}.",
        why="The chat template writes it: the model would see another token in its place.",
        remedy="Take all tokenizer files from the same model.",
    )


def named_tokens(tokenizer_config: JSON, added_tokens: JSON) -> dict[str, tuple[int, JSON]]:
    """The tokens that files beside tokenizer.json name: content to id and flags.

    `added_tokens` is added_tokens.json, which counts where tokenizer_config.json has no
    `added_tokens_decoder`. Entries of another form are passed over.
    """
    decoder = tokenizer_config.get("added_tokens_decoder")
    if isinstance(decoder, Mapping):
        listed = [(number, entry) for number, entry in decoder.items() if isinstance(entry, Mapping)]
    else:
        listed = [(number, {"content": token, "normalized": False}) for token, number in added_tokens.items()]
    return {
        str(entry["content"]): (int(number), {flag: bool(entry[flag]) for flag in _FLAGS if flag in entry})
        for number, entry in listed
        if entry.get("content") and str(number).isdecimal()
    }
