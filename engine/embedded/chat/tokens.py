"""Where a prompt begins and a reply ends: BOS, EOS and stops, from everything that names them.

WebLLM stops at `stop_token_ids`, before the token is decoded, and at `stop_str` in the decoded
text; `eos_token_id` it never reads. A stop that is one token is therefore an id, and a stop string
is only for an end of turn that the tokenizer has no token for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.embedded.chat.folder import ModelFolder


@dataclass(frozen=True, kw_only=True)
class Stops:
    """Token ids and strings that end a reply, and what there is to say about where they come from."""

    ids: tuple[int, ...]
    strings: tuple[str, ...]
    warnings: tuple[str, ...]


def bos_token(folder: ModelFolder) -> tuple[str, int] | None:
    """The BOS token and its id, None where the tokenizer has none."""
    token = folder.special_tokens.get("bos_token")
    number = folder.tokenizer.token_to_id(token) if token else None
    return (token, number) if token and number is not None else None


def is_token(folder: ModelFolder, number: object) -> bool:
    """Whether `number` is the id of a token of the tokenizer."""
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**32:
        return False  # the binding takes none but these
    return folder.tokenizer.id_to_token(number) is not None


def completion_prefix(folder: ModelFolder) -> tuple[int, ...]:
    """The ids that the tokenizer puts before any plain text: the BOS of models without a chat template.

    It is what the post-processor of tokenizer.json adds, or BOS where tokenizer_config.json asks
    for it with `add_bos_token`.
    """
    encode = folder.tokenizer.encode
    bare, full = (encode("a", add_special_tokens=special).ids for special in (False, True))
    if bare and bare[0] in full and (before := full[: full.index(bare[0])]):
        return tuple(before)
    bos = bos_token(folder)
    return (bos[1],) if bos and folder.tokenizer_config.get("add_bos_token") else ()


def stops(folder: ModelFolder, after_reply: str = "", extra: Iterable[str] = ()) -> Stops:
    """All stops of a model.

    `after_reply` is what the chat template writes after a reply, empty without one; `extra` are
    further tokens that end a reply, by content, for a named template.
    """
    tokenizer, warnings = folder.tokenizer, []
    eos = folder.special_tokens.get("eos_token")
    stated = {
        "generation_config.json": _ids(folder.generation_config.get("eos_token_id")),
        "config.json": _ids(folder.config.get("eos_token_id")),
        "tokenizer_config.json": _ids(tokenizer.token_to_id(eos) if eos else None),
    }
    for where, ids in stated.items():
        for missing in sorted(number for number in ids if not is_token(folder, number)):
            warnings.append(f"{where} ends replies at token {missing}, which the tokenizer does not have")
        ids.intersection_update(number for number in set(ids) if is_token(folder, number))
    whole = set(folder.added_tokens.values())
    for where, ids in stated.items():
        if ordinary := ids - whole:
            warnings.append(
                f"{where} ends replies at {_shown(folder, ordinary)}, a piece of ordinary text: they stop "
                "wherever it occurs"
            )
    named = {where: ids for where, ids in stated.items() if ids}
    widest = max(named.values(), key=len, default=set())
    if any(not ids <= widest for ids in named.values()):
        told = ", ".join(f"{where} says {_shown(folder, ids)}" for where, ids in named.items())
        warnings.append(f"the files disagree on what ends a reply ({told}): each of them does")
    found = set().union(*named.values()) if named else set()

    strings: tuple[str, ...] = ()
    end = _end_of_turn(folder, after_reply)
    number = folder.added_tokens.get(end)
    if number is not None:
        found.add(number)
    elif end:
        strings = (end,)
    found.update(folder.added_tokens[token] for token in extra if token in folder.added_tokens)
    if not found and not strings:
        warnings.append("nothing says what ends a reply: generation goes on until its length limit")
    return Stops(ids=tuple(sorted(found)), strings=strings, warnings=tuple(warnings))


def _end_of_turn(folder: ModelFolder, after_reply: str) -> str:
    """What the model itself writes when its turn is over: the token there, else the first line."""
    text = after_reply.strip()
    bos = bos_token(folder)
    for token in sorted(folder.added_tokens, key=len, reverse=True):
        if text.startswith(token) and (bos is None or token != bos[0]):
            return token
    if not text:
        return ""
    line = text.splitlines()[0]
    first = min((line.find(token) for token in folder.added_tokens if token in line), default=-1)
    return (line[:first] if first > 0 else line).strip()


def _ids(value: Any) -> set[int]:
    listed = value if isinstance(value, list) else [value]
    return {number for number in listed if isinstance(number, int) and not isinstance(number, bool)}


def _shown(folder: ModelFolder, ids: set[int]) -> str:
    return " ".join(f"{number} {folder.tokenizer.id_to_token(number)!r}" for number in sorted(ids))
