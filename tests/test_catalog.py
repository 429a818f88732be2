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
    [
        ("q4f16_1", 4, 7, 8, True),
        ("q4f32_1", 4, 7, 8, False),
        ("q4bf16_0", 4, 7, 8, False),
        ("q3f16_1", 3, 3, 10, True),
    ],
)
def test_group_quantizations(name: str, bits: int, max_int: int, per_word: int, f16: bool) -> None:
    q = catalog.QUANTIZATIONS[name]
    assert (q.bits, q.max_int, q.elements_per_word, q.needs_f16) == (bits, max_int, per_word, f16)
    assert q.group_size % per_word == 0


def test_names_state_bits_and_compute_dtype() -> None:
    for name, q in catalog.QUANTIZATIONS.items():
        assert name.startswith(f"q{q.bits or 0}")
        compute = name[2:].partition("_")[0]
        assert {"f16": "float16", "f32": "float32", "bf16": "bfloat16"}[compute] == q.model_dtype


def test_suffixes_state_the_layout_and_what_stays_as_it_is() -> None:
    """_0 is KN and _1 NK; _2 is NK and leaves embedding and head alone."""
    for name, q in catalog.QUANTIZATIONS.items():
        if q.bits is None or q.from_awq:
            continue
        assert q.layout == ("KN" if name.endswith("_0") else "NK")
        assert q.quantize_embedding == q.quantize_final_fc == (not name.endswith("_2"))


def test_all_that_mlc_llms_documents_name() -> None:
    plain = "q0f16 q0bf16 q0f32 q3f16_0 q3f16_1 q4f16_0 q4f16_1 q4f16_2 q4f32_1 q4bf16_0 q4bf16_1"
    assert set(catalog.QUANTIZATIONS) == {*plain.split(), "q4f16_autoawq"}
    assert catalog.ALIASES == {"q4f16_awq": "q4f16_autoawq"}


def test_bfloat16_runs_everywhere_but_in_browsers() -> None:
    for q in catalog.QUANTIZATIONS.values():
        assert q.runs_on("webgpu") == (q.model_dtype != "bfloat16")
        assert q.runs_on("cpu")
        assert ("browser" in q.sentence) == (q.model_dtype == "bfloat16")


@pytest.mark.parametrize(
    ("mode", "compute", "expected"),
    [
        *(
            ("q0f16", "float32", "q0f32"),
            ("q4f16_1", "float32", "q4f32_1"),
            ("q4f32_1", "float16", "q4f16_1"),
        ),
        *(("q0f16", "bfloat16", "q0bf16"), ("q4f16_0", "bfloat16", "q4bf16_0")),
        *(("q4bf16_0", "float32", "q4f32_1"), ("q4f16_2", "float32", "q4f32_1")),
    ],
)
def test_sibling_of_another_compute_dtype(mode: str, compute: catalog.ModelDtype, expected: str) -> None:
    assert (
        catalog.sibling(catalog.QUANTIZATIONS[mode], model_dtype=compute) == catalog.QUANTIZATIONS[expected]
    )


def test_sibling_without_quantization() -> None:
    assert catalog.sibling(catalog.QUANTIZATIONS["q4f32_1"], bits=None) == catalog.QUANTIZATIONS["q0f32"]


def test_there_is_no_sibling_where_the_table_has_none() -> None:
    assert catalog.sibling(catalog.QUANTIZATIONS["q3f16_1"], model_dtype="float32") is None
    assert catalog.sibling(catalog.QUANTIZATIONS["q4f16_autoawq"], bits=None) is None


def test_four_bits_in_place_of_none_are_the_usual_ones() -> None:
    for mode, expected in (("q0f16", "q4f16_1"), ("q0f32", "q4f32_1"), ("q0bf16", "q4bf16_1")):
        assert catalog.sibling(catalog.QUANTIZATIONS[mode], bits=4) == catalog.QUANTIZATIONS[expected]


@pytest.mark.parametrize(("platform", "suffix"), [("linux", ".so"), ("darwin", ".dylib"), ("win32", ".dll")])
def test_host_library_suffix(platform: str, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert catalog.host_library_suffix() == suffix
    assert suffix in catalog.TARGETS["cpu"].suffixes
