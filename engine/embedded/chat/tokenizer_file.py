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


def tokenizer_of(path: Path, stated: JSON, named: Mapping[str, tuple[int, JSON]]) -> TokenizerFile:
    """The tokenizer of `path`, whose content is `stated`; `named` are the tokens that it must have.

    `named` gives each token's id and flags, as `named_tokens` does.
    Raises UsageError for a file that does not load, and for a token that cannot have the id it is named
    with: the embedding's row would be another one's.
    """
    content, changes = dict(stated), []
    for key, what in (("truncation", "cuts texts short"), ("padding", "pads texts")):
        if content.get(key):
            content[key] = None
            changes.append(f"tokenizer.json {what}, as in training; the export's does not")
    known = {token["content"] for token in content.get("added_tokens") or ()}
    lacking = sorted((number, token) for token, (number, _) in named.items() if token not in known)
    try:
        # By content: the binding takes no path that is not Unicode.
        tokenizer = Tokenizer.from_buffer(json.dumps(content).encode() if changes else path.read_bytes())
    except Exception as error:  # the binding raises plain Exception
        raise UsageError(
            f"{path} cannot be loaded: {error}",
            remedy="Download the file again, or update the tokenizers package.",
        ) from error
    if lacking:
        for number, token in lacking:
            _add(tokenizer, path, token, number, named[token][1])
        content = json.loads(tokenizer.to_str())
        tokens = some([repr(token) for _, token in lacking])
        changes.append(f"tokenizer.json lacks {tokens}, which belong to it; the export's has them")
    return TokenizerFile(tokenizer=tokenizer, content=content, changes=tuple(changes))


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


def _add(tokenizer: Tokenizer, path: Path, token: str, number: int, flags: JSON) -> None:
    tokenizer.add_tokens([AddedToken(token, **flags)])
    if (found := tokenizer.token_to_id(token)) != number:
        raise UsageError(
            f"{path} lacks the token {token!r}, which the files beside it give the id {number}; "
            f"added, it gets {found}.",
            why="The files are of different models, and the model would see another token in its place.",
            remedy="Take all tokenizer files from the same model, or remove the token from the file that "
            "names it.",
        )
