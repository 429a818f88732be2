"""engine.explain: failures that users meet, by the very lines in which they meet them."""

import re

import pytest
from explain_support import found
from failure_lines import HARMLESS, LINES
from hypothesis import given
from hypothesis import strategies as st

from engine import errors
from engine.catalog import TARGETS
from engine.explain import KNOWN, Matcher, is_noise
from engine.explain.known import GAP, Known
from engine.explain.match import _Text
from tui.widgets.log_lines import severity


@pytest.mark.parametrize(("code", "line"), LINES)
def test_a_failure_is_known_by_its_line(code: str, line: str) -> None:
    findings = found(["before it", line, "after it"])
    assert [finding.known.code for finding in findings] == [code]
    assert (findings[0].number, findings[0].line, findings[0].count) == (2, line.strip(), 1)


def test_every_failure_has_its_lines_here() -> None:
    codes = [known.code for known in KNOWN]
    assert len(codes) == len(set(codes))
    assert set(codes) == {code for code, _ in LINES}


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.code)
def test_a_row_is_told_in_full(known: Known) -> None:
    for text in (known.title, known.cause, known.remedy):
        assert text
        assert "  " not in text
        assert "—" not in text
    assert known.title.endswith(".")
    assert known.cause.endswith(".")
    assert set(known.targets) <= set(TARGETS)
    assert issubclass(known.error, errors.WizardError)
    # A log that has our own words in it, as that of a run has, means nothing more by them.
    assert not found([known.title, known.cause, known.remedy])


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_harmless_is_no_cause_and_looks_like_it(line: str) -> None:
    assert is_noise(line)
    assert severity(line) == "noise"
    assert not found([line, f"{line} Killed  "])


def test_an_error_is_no_noise() -> None:
    assert not any(is_noise(line) for _, line in LINES)


# --- the order -----------------------------------------------------------------------------------


def test_what_stands_last_comes_first_and_symptoms_come_last() -> None:
    lines = [
        "ModuleNotFoundError: No module named 'tvm'",
        "OSError: [Errno 28] No space left on device",
        "Not found: No available device detected",
        "ModuleNotFoundError: No module named 'tvm'",
        "RuntimeError: Cannot find compilation output, compilation failed",
    ]
    told = [(f.known.code, f.number, f.count) for f in found(lines)]
    assert told == [
        ("tvm-missing", 4, 2),
        ("disk-full", 2, 1),
        ("compilation-without-output", 5, 1),
        ("no-device-detected", 3, 1),
    ]


def test_of_one_line_what_says_more_comes_first() -> None:
    line = "exit code 137: RuntimeError: Cannot find wasm_runtime.bc; searched []"
    assert [f.known.code for f in found([line])] == ["wasm-runtime-missing", "out-of-memory"]


def test_a_symptom_is_no_cause() -> None:
    matcher = Matcher()
    matcher.feed(["Not found: No available device detected"])
    assert matcher.cause() is None
    assert matcher.findings()


# --- the search ----------------------------------------------------------------------------------


TEXTS = [_Text(known, text) for known in KNOWN for text in known.texts]


class Counting(str):
    """A line that counts how often it is searched."""

    __slots__ = ("searches",)
    searches: int

    def find(self, *args: object) -> int:
        self.searches = getattr(self, "searches", 0) + 1
        return super().find(*args)  # type: ignore[arg-type]


@given(st.sampled_from(TEXTS), st.integers(1, 200), st.booleans(), st.booleans())
def test_no_line_is_searched_more_often_than_a_text_has_parts(
    text: _Text, times: int, almost: bool, backwards: bool
) -> None:
    """Lines made to be nearly what is looked for cost one pass for each part, however long they are."""
    parts = [part[:-1] if almost else part for part in text.parts]
    line = Counting("".join(reversed(parts) if backwards else parts) * times)
    text.stands_in(line)
    assert line.searches <= len(text.parts)


@given(st.sampled_from(TEXTS), st.data())
def test_a_gap_is_anything_and_the_order_counts(text: _Text, data: st.DataObject) -> None:
    pieces = st.sampled_from([*text.parts, " ", "x", "'"])
    line = "\n" + "".join(data.draw(st.lists(pieces, max_size=8))) + "\n"
    told = re.search(".*?".join(map(re.escape, text.parts)), line, re.DOTALL)
    assert text.stands_in(line) == (told is not None)


@given(st.lists(st.sampled_from([line for _, line in LINES] + list(HARMLESS) + ["", "x"])), st.data())
def test_batches_do_not_matter(lines: list[str], data: st.DataObject) -> None:
    matcher, rest = Matcher(), list(lines)
    while rest:
        size = data.draw(st.integers(0, len(rest)))
        matcher.feed(rest[:size])
        rest = rest[size:]
        if size == 0:
            matcher.feed(rest[:1])
            rest = rest[1:]
    assert matcher.findings() == found(lines)
    assert matcher.lines == len(lines)


def test_no_text_has_an_empty_part() -> None:
    """Such a part would be found everywhere."""
    assert all(part.strip() for text in TEXTS for part in text.parts)
    assert all(len(text.needle) >= 6 for text in TEXTS)
    assert GAP == "…"
