"""The judge of JSON prefixes, before others rely on it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_prefix import is_json_prefix

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
@settings(max_examples=100)
def test_the_judge_accepts_every_prefix_of_json(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(errors="replace")
    assert all(is_json_prefix(text[:end]) for end in range(len(text) + 1))


HOPELESS = """] , x nx + 01 1.e NaN -I [, {"a", {1 {"a":} {"a":1,} ["\\x ["\\u00g "a"b [1]] {] ' / // {'"""


@pytest.mark.parametrize(
    "text", [*HOPELESS.encode().split(), b"[1 1", b'"\n', b'"a" b', b"\xc3", b'"\xc3"', b'"\xff']
)
def test_the_judge_refuses_what_cannot_become_json(text: bytes) -> None:
    assert not is_json_prefix(text)
