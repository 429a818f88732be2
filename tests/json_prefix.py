"""Can these bytes still become a JSON text? The standard library's parser is the judge."""

import codecs
import json
from typing import NoReturn

# What may complete a number, a literal, or the place before a key, a colon, a value or a bracket.
_ENDINGS = ("", "0", '"":0', ":0", "rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l")
# The same for a string, which may be a key and may end within an escape sequence.
_STRING_ENDINGS = [escape + end for escape in ("", "n", "0", "00", "000", "0000") for end in ('"', '":0')]
_BRACKETS = {"{": "}", "[": "]"}


def is_json_prefix(data: bytes, *, errors: str = "strict") -> bool:
    """Whether some bytes after `data` make it a JSON text (RFC 8259) in UTF-8.

    `errors` as in `bytes.decode`: "replace" asks it of the text that a reader of invalid UTF-8 sees.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    try:
        text = decoder.decode(data)
    except UnicodeDecodeError:
        return False
    if decoder.getstate()[0]:
        text += (
            "é"  # a character has begun that is not an ASCII one: all of them are legal in the same places
        )
    closing, in_string = _open(text)
    return any(_parses(text + ending + closing) for ending in (_STRING_ENDINGS if in_string else _ENDINGS))


def _open(text: str) -> tuple[str, bool]:
    """The brackets that close what is open, and whether a string is open."""
    closing, in_string, escaped = "", False, False
    for letter in text:
        if in_string:
            in_string = escaped or letter != '"'
            escaped = not escaped and letter == "\\"
        elif letter == '"':
            in_string = True
        elif letter in _BRACKETS:
            closing = _BRACKETS[letter] + closing
        elif closing.startswith(letter):
            closing = closing[1:]
    return closing, in_string


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")  # json.loads takes NaN and Infinity


def _parses(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True
