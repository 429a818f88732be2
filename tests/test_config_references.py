"""What transformers makes of every field that a config.json leaves out, nulls or writes as version 5 does."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_configs import MADE, PUBLISHED, changed

from engine.embedded import evaluate
from engine.embedded.families.registry import FAMILIES
from engine.embedded.source import decoder_of
from engine.embedded.spec import DecoderSpec, Parameter
from engine.errors import UsageError
from engine.model.config import normalise

DATA = Path(__file__).parent / "data" / "config_references.json"
REFERENCES: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
Case = dict[str, Any]
CASES: dict[str, list[Case]] = {}
for case in REFERENCES["cases"]:
    config = changed((PUBLISHED | MADE)[case["name"]], case["without"], case["with"])
    CASES.setdefault(case["name"], []).append(case | {"config": config})

# The classes of transformers' activations.
ACTIVATIONS = {"SiLUActivation": "silu", "GELUActivation": "gelu", "NewGELUActivation": "gelu_tanh"}
ACTIVATIONS |= {"GELUTanh": "gelu_tanh", "FastGELUActivation": "gelu_tanh"}


def structure(case: Case, part: str) -> Any:
    return REFERENCES["structures"][case[part]]


def sources(parameters: tuple[Parameter, ...]) -> Counter[str]:
    """How many elements come of each source tensor, or of several that are joined."""
    sizes: Counter[str] = Counter()
    for parameter in parameters:
        sizes[" ".join(parameter.sources)] = int(np.prod(parameter.shape))
    return sizes


def check_parameters(spec: DecoderSpec, parameters: tuple[Parameter, ...], shapes: dict[str, Any]) -> None:
    """The same tensors, none more and none less, and of the same sizes."""
    for parameter in parameters:
        # GPT-2 on the Hub has no prefix; transformers 5 calls GPT-NeoX's head otherwise.
        names = [name if name in shapes else f"transformer.{name}" for name in parameter.sources]
        names = ["lm_head.weight" if name == "transformer.embed_out.weight" else name for name in names]
        found = [shapes.pop(name) for name in names if (parameter.kind, spec.model_type) != ("head", "gpt2")]
        if found:
            assert sum(int(np.prod(shape)) for shape in found) == int(np.prod(parameter.shape)), names
    assert not shapes


def check(case: Case) -> None:
    """The decoder of a config is the model that transformers makes of it."""
    spec, parameters = decoder_of(normalise(case["config"]))
    check_parameters(spec, parameters, dict(structure(case, "parameters")))
    assert spec.activation == ACTIVATIONS[case["activation"]]
    assert spec.norm_eps == case["norm_eps"]
    assert spec.attention_scale == pytest.approx(case["attention_scale"])
    assert [spec.attention_softcap or None, spec.logit_softcap or None] == [
        c or None for c in case["softcaps"]
    ]
    assert spec.parallel_residual == case["parallel_residual"]
    text = case["config"].get("text_config", case["config"])
    longest = text.get("max_position_embeddings") or 131072
    layers = structure(case, "layers")
    assert len(spec.layers) == len(layers)
    for ours, theirs in zip(spec.layers, layers, strict=True):
        assert window(ours.window, longest) == window(theirs["window"], longest)
        if theirs["rope"] is None:
            assert spec.rotary_dim == 0
            continue
        found = evaluate.rope_frequencies(spec.rotary_dim, ours, 1)
        np.testing.assert_allclose(found, theirs["rope"]["frequencies"], rtol=1e-6)
        factor = ours.rope_scaling.attention_factor if ours.rope_scaling else 1.0
        assert factor == pytest.approx(theirs["rope"]["factor"])


def window(tokens: int | None, longest: int) -> int | None:
    """None for a window that never hides a token."""
    return tokens if tokens and tokens < longest else None


def test_every_family_and_every_published_config_is_there() -> None:
    assert set(CASES) == set(PUBLISHED | MADE)
    families = {decoder_of(normalise(config))[0].model_type for config in PUBLISHED.values()}
    assert families == set(FAMILIES)


@pytest.mark.parametrize("name", CASES)
def test_absent_null_and_nested_fields_mean_what_they_mean_to_transformers(name: str) -> None:
    assert len(CASES[name]) >= 5
    for case in CASES[name]:
        try:
            check(case)
        except (AssertionError, UsageError) as error:
            raise AssertionError(json.dumps(case["config"])) from error
