"""Configurations of transformers 4 and 5 in one form, whatever way the rope settings are written."""

import json
from typing import Any

import pytest
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.model.config import normalise

FAMILIES = sorted(path.name for path in GOLDEN.iterdir())
# What transformers 5 writes besides, though it changes nothing, and what it no longer writes.
BESIDE = ("transformers_version", "layer_types", "sliding_window_pattern")


def read(version: int, family: str) -> dict[str, Any]:
    name = "hf/config.json" if version == 4 else "config.transformers5.json"
    found: dict[str, Any] = json.loads((GOLDEN / family / name).read_text())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_both_versions_say_the_same(family: str) -> None:
    old, new = (normalise(read(version, family)) for version in (4, 5))
    for config in (old, new):
        for key in BESIDE:
            config.pop(key, None)
        assert {"rope_scaling", "torch_dtype"} <= config.keys()
        assert ("rope_theta" in config) == (family != "gpt2")  # whose positions are learned
    # Theirs are settings that the other version leaves out where they are the default.
    defaults = {"rope_theta": 10000.0, "partial_rotary_factor": 1.0, "rope_local_base_freq": 10000.0}
    for key in old.keys() | new.keys():
        assert old.get(key, defaults.get(key)) == new.get(key, defaults.get(key)), key


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("version", [4, 5])
def test_twice_is_once(family: str, version: int) -> None:
    once = normalise(read(version, family))
    assert normalise(once) == once


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FULL = {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"rope_scaling": None}),
        ({"rope_parameters": None}, {"rope_scaling": None}),
        ({"rope_parameters": {}}, {"rope_scaling": None}),
        ({"rope_scaling": {"rope_type": "default"}}, {"rope_scaling": None}),
        ({"rope_theta": 7.0}, {"rope_theta": 7.0}),
        ({"rope_parameters": {"rope_theta": 5.0}}, {"rope_theta": 5.0, "rope_scaling": None}),
        # The nested value is the one that transformers 5 means.
        ({"rope_theta": 7.0, "rope_parameters": {"rope_theta": 5.0}}, {"rope_theta": 5.0}),
        ({"rope_theta": 7.0, "rope_parameters": {"rope_type": "default"}}, {"rope_theta": 7.0}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        ),
        (
            {"rope_parameters": {"type": "linear", "factor": 2.0, "rope_theta": 5.0}},
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 5.0},
        ),
        # rope_scaling is there for older readers, or was set by hand: it wins as a whole.
        (
            {
                "rope_scaling": {"rope_type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5.0},
                "rope_theta": 7.0,
            },
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 7.0},
        ),
        (
            {
                "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3},
                "max_position_embeddings": 99,
            },
            {
                "rope_scaling": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 99},
                "rope_theta": 5e5,
            },
        ),
        (
            {
                "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [2.0]},
                "original_max_position_embeddings": 4096,
                "max_position_embeddings": 131072,
            },
            {
                "rope_scaling": {
                    "rope_type": "longrope",
                    "short_factor": [1.0],
                    "long_factor": [2.0],
                    "original_max_position_embeddings": 4096,
                }
            },
        ),
        (
            {"rope_scaling": {"type": "yarn", "short_factor": [1.0], "long_factor": [2.0]}},
            {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}},
        ),
        (
            {"rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.25}},
            {"partial_rotary_factor": 0.25, "rope_theta": 5.0},
        ),
        # Gemma 3, and what else has a rope base for each kind of layer.
        (
            {"rope_parameters": {"full_attention": FULL, "sliding_attention": {"rope_theta": 1e4}}},
            {
                "rope_theta": 1e6,
                "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, {"rope_theta": 1e6}),
        (
            {"rope_parameters": {"full_attention": None, "sliding_attention": {"rope_theta": 1e4}}},
            {"rope_theta": 1e4, "rope_local_base_freq": 1e4},
        ),
        (
            {"rope_parameters": {"full_attention": FULL, "sliding_attention": None}, "rope_theta": 3.0},
            {"rope_theta": 1e6},
        ),
        (
            {
                "rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {}},
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        ),
        # GPT-NeoX
        (
            {"model_type": "gpt_neox", "rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.5}},
            {"rotary_emb_base": 5.0, "rotary_pct": 0.5, "rope_theta": 5.0, "partial_rotary_factor": 0.5},
        ),
        (
            {"model_type": "gpt_neox", "rotary_emb_base": 5, "rotary_pct": 0.5},
            {"rotary_emb_base": 5, "rotary_pct": 0.5, "rope_theta": 5, "partial_rotary_factor": 0.5},
        ),
        # The dtype of the weights, which is read from the weights themselves
        ({"torch_dtype": "float16"}, {"torch_dtype": "float16"}),
        ({"dtype": "bfloat16"}, {"torch_dtype": "bfloat16"}),
        ({"dtype": "bfloat16", "torch_dtype": "float32"}, {"torch_dtype": "bfloat16"}),
        ({"dtype": None, "torch_dtype": "float32"}, {"torch_dtype": "float32"}),
        ({"torch_dtype": "torch.float16"}, {"torch_dtype": "float16"}),
        ({"dtype": {"": "float32", "text_config": "bfloat16"}}, {"torch_dtype": "bfloat16"}),
        (
            {"text_config": {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 5.0}}},
            {"text_config": {"torch_dtype": "bfloat16", "rope_theta": 5.0, "rope_scaling": None}},
        ),
    ],
)
def test_every_form_of_rope_and_dtype(config: dict[str, Any], expected: dict[str, Any]) -> None:
    before = json.dumps(config)
    found = normalise(config)
    assert json.dumps(config) == before
    for key, value in expected.items():
        assert found[key] == value
    added = {"rope_scaling", "rope_theta", "rope_local_base_freq", "torch_dtype"}
    assert found.keys() <= config.keys() | expected.keys() | added
    assert "rope_parameters" not in found
    assert "dtype" not in found
    assert normalise(found) == found


def test_no_dtype_is_none() -> None:
    assert "torch_dtype" not in normalise({"torch_dtype": None})
    assert "torch_dtype" not in normalise({"dtype": None})


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"rope_parameters": 5}, "rope_parameters = 5"),
        ({"rope_parameters": ["default"]}, "rope_parameters = ['default']"),
        ({"rope_scaling": "linear"}, "rope_scaling = 'linear'"),
        ({"rope_parameters": {"full_attention": 1e6}}, "rope_parameters.full_attention = 1000000.0"),
        ({"text_config": {"rope_scaling": 2}}, "rope_scaling = 2"),
    ],
)
def test_settings_that_are_no_objects_are_told(config: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalise(config)
    assert name in caught.value.what
    assert caught.value.remedy


SCALAR = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8)
ROPE_KEYS = ("rope_theta", "rope_type", "type", "factor", "full_attention", "sliding_attention")
TOP_KEYS = ("rope_parameters", "rope_scaling", "dtype", "torch_dtype", "model_type", "text_config")
KEYS = st.sampled_from([*ROPE_KEYS, *TOP_KEYS, "short_factor", "rotary_pct"])
ANY = st.recursive(SCALAR, lambda inner: st.dictionaries(KEYS, inner) | st.lists(inner, max_size=2))


@given(st.dictionaries(KEYS, ANY))
def test_anything_is_normalised_once_and_for_all_or_refused(config: dict[str, Any]) -> None:
    try:
        once = normalise(config)
    except UsageError:
        return
    assert normalise(once) == once
