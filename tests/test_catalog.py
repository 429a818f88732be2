"""The tables of quantizations and targets."""

import sys

import pytest

from engine import catalog


def test_names_are_keys_and_every_entry_has_one_sentence() -> None:
    for table in (catalog.QUANTIZATIONS, catalog.TARGETS):
        for name, entry in table.items():
            assert entry.name == name
            assert entry.sentence.endswith(".")
            assert "\n" not in entry.sentence


@pytest.mark.parametrize(
    ("name", "bits", "max_int", "per_word", "f16"),
    [("q4f16_1", 4, 7, 8, True), ("q4f32_1", 4, 7, 8, False)],
)
def test_group_quantizations(name: str, bits: int, max_int: int, per_word: int, f16: bool) -> None:
    q = catalog.QUANTIZATIONS[name]
    assert (q.bits, q.max_int, q.elements_per_word, q.needs_f16) == (bits, max_int, per_word, f16)
    assert q.group_size % per_word == 0


def test_names_state_bits_and_compute_dtype() -> None:
    for name, q in catalog.QUANTIZATIONS.items():
        assert name.startswith(f"q{q.bits or 0}")
        assert {"f16": "float16", "f32": "float32"}[name[2:5]] == q.model_dtype


@pytest.mark.parametrize(
    ("mode", "compute", "expected"),
    [("q0f16", "float32", "q0f32"), ("q4f16_1", "float32", "q4f32_1"), ("q4f32_1", "float16", "q4f16_1")],
)
def test_sibling_of_another_compute_dtype(mode: str, compute: catalog.ModelDtype, expected: str) -> None:
    assert (
        catalog.sibling(catalog.QUANTIZATIONS[mode], model_dtype=compute) == catalog.QUANTIZATIONS[expected]
    )


def test_sibling_without_quantization() -> None:
    assert catalog.sibling(catalog.QUANTIZATIONS["q4f32_1"], bits=None) == catalog.QUANTIZATIONS["q0f32"]


def test_there_is_no_sibling_where_the_table_has_none() -> None:
    assert catalog.sibling(catalog.QUANTIZATIONS["q0f16"], model_dtype="bfloat16") is None


@pytest.mark.parametrize(("platform", "suffix"), [("linux", ".so"), ("darwin", ".dylib"), ("win32", ".dll")])
def test_host_library_suffix(platform: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert catalog.host_library_suffix() == suffix
    assert suffix in catalog.TARGETS["cpu"].suffixes
