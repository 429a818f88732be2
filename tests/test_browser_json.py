"""JSON mode in real WebLLM: the grammar's mask leaves exactly the tokens that may become JSON."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from browser.harness import Page, Reply
from browser_sampling_support import HELLO, MODEL, VOCABULARY, bias_option, page
from exports import GOLDEN
from json_prefix import is_json_prefix
from numpy.typing import NDArray
from sampling_reference import biased, sampled, uniforms

from engine.embedded.kernels.sampling import FORBIDDEN

__all__ = ["page"]

pytestmark = pytest.mark.browser

SPECIAL = {0: b"<pad>", 1: b"<bos>", 2: b"", 3: b"<unk>", 4: b"<start_of_turn>", 5: b""}
"""What the text of a reply shows of the special tokens, <eos> and <end_of_turn> being its end."""
STOP_TOKENS = {2, 5}

TWO_FIELDS = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["S", "M"]}},
    "required": ["ok", "size"],
}


def vocabulary() -> dict[int, bytes]:
    """What each token but the special ones spells."""
    tokenizer = json.loads((GOLDEN / MODEL / "hf" / "tokenizer.json").read_text(encoding="utf-8"))
    spelled = {}
    for text, token in tokenizer["model"]["vocab"].items():
        byte = re.fullmatch(r"<0x(..)>", text)
        spelled[token] = bytes.fromhex(byte[1]) if byte else text.replace("▁", " ").encode()
    return {token: spelled[token] for token in spelled.keys() - SPECIAL.keys()}


def allowed(logits: NDArray[np.float32]) -> set[int]:
    """The tokens that the grammar left; what it took has exactly the mask's value."""
    assert np.all((logits == np.float32(FORBIDDEN)) | (np.abs(logits) < 1e3))
    return {int(token) for token in np.flatnonzero(logits > -1e3)}


def check_tokens(reply: Reply, seed: int, bias: Mapping[int, float]) -> None:
    """Every token is allowed, and the one that its step's sample selects among those."""
    for logits, token, uniform in zip(reply.logits, reply.tokens, uniforms(seed), strict=False):
        assert token in allowed(logits)
        assert token in sampled(biased(logits, bias), 1.0, 1.0, uniform)


def test_json_mode_allows_exactly_what_may_become_json(page: Page) -> None:
    # The schema {} is any JSON. (Without a schema, json_object fails in WebLLM 0.2.86 itself.)
    schema = {"type": "json_object", "schema": "{}"}
    spelled = vocabulary()
    # Structure is likely, for a model that has not learned it.
    wanted = {b"{": 5.0, b"[": 4.0, b'"': 4.0, b'",': 5.0, b",": 4.0, b"}": 3.0, b"]": 3.0}
    bias = {token: wanted[text] for token, text in spelled.items() if text in wanted}
    seed = 6
    options: dict[str, Any] = {
        "temperature": 1,
        "seed": seed,
        "max_tokens": 32,
        "logit_bias": bias_option(bias),
    }
    reply = page.chat(HELLO, response_format=schema, **options)
    check_tokens(reply, seed, bias)
    text = b""
    for logits, token in zip(reply.logits, reply.tokens, strict=True):
        left = allowed(logits)
        assert left.isdisjoint(range(len(spelled) + len(SPECIAL), VOCABULARY)), "padding spells nothing"
        assert left & STOP_TOKENS == (STOP_TOKENS if _is_json(text) else set())
        for other, spelling in spelled.items():
            if other in left:
                # The grammar takes lead bytes that UTF-8 has no use for; who reads them sees U+FFFD.
                assert is_json_prefix(text + spelling, errors="replace"), (text, spelling)
            elif text and spelling != b"\r":
                # It has no white space before and after all, and no carriage return anywhere.
                assert _is_json(text) or not is_json_prefix(text + spelling), (text, spelling)
        text += spelled[token] if token in spelled else SPECIAL[token]
    assert reply.text == text.decode(errors="replace")
    assert all(is_json_prefix(reply.text[:end].encode()) for end in range(len(reply.text) + 1))
    assert set(b'{":,') <= set(text), "a reply with some structure"


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_json_mode_with_a_schema_ends_with_what_the_schema_says(page: Page) -> None:
    spelled = vocabulary()
    spaces = {token: -100.0 for token, text in spelled.items() if not text.strip()}
    seed = 3
    options: dict[str, Any] = {
        "temperature": 1,
        "seed": seed,
        "max_tokens": 40,
        "logit_bias": bias_option(spaces),
    }
    schema = {"type": "json_object", "schema": json.dumps(TWO_FIELDS)}
    reply = page.chat(HELLO, response_format=schema, **options)
    assert reply.finish_reason == "stop"
    value = json.loads(reply.text)
    assert list(value) == ["ok", "size"]
    assert isinstance(value["ok"], bool)
    assert value["size"] in ("S", "M")
    check_tokens(reply, seed, spaces)
    # The mask changes nothing but what it forbids.
    free = page.chat(HELLO, force=reply.tokens)
    assert free.tokens == reply.tokens
    for masked, raw in zip(reply.logits, free.logits, strict=True):
        left = sorted(allowed(masked))
        assert 0 < len(left) < 32
        np.testing.assert_allclose(masked[left], raw[left], rtol=0, atol=1e-5)
