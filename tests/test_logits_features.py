"""What sets compiled decoders apart from the reference's easy cases, and from mlc_llm's."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from conftest import GOLDEN
from exports import LIBRARY, QUANTIZATIONS, decoder
from numpy.typing import NDArray
from safetensors.numpy import load_file

from engine.embedded import evaluate
from engine.embedded.compile import compile_library
from engine.embedded.local import LocalModel
from engine.embedded.spec import DecoderSpec
from engine.errors import UsageError

TOLERANCE = 1e-4
ORIGINAL = 64


@cache
def _reference(model: str) -> dict[str, NDArray[Any]]:
    return load_file(GOLDEN / model / "reference.safetensors")


def _error(found: NDArray[Any], want: NDArray[Any]) -> float:
    return float(np.abs(found - want).max() / want.std())


def _longrope(folder: Path, context: int) -> Path:
    """The Phi-3 model with longrope from 64 tokens on, compiled for a context of `context`."""
    made = folder / "phi3"
    shutil.copytree(exports.weights("phi3", "q0f32"), made)
    path = made / "mlc-chat-config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    pairs = decoder(made)[0].rotary_dim // 2
    config["model_config"] |= {
        "original_max_position_embeddings": ORIGINAL,
        "rope_scaling": {
            "type": "longrope",
            "rope_type": "longrope",
            "original_max_position_embeddings": ORIGINAL,
            "max_position_embeddings": 512,
            "short_factor": [1.0 + 0.1 * j for j in range(pairs)],
            "long_factor": [2.0 + j for j in range(pairs)],
        },
    }
    config |= {"context_window_size": context, "prefill_chunk_size": 64}
    path.write_text(json.dumps(config), encoding="utf-8")
    compile_library(made, made / LIBRARY["cpu"], device="cpu")
    return made


@pytest.mark.parametrize(("context", "warned"), [(ORIGINAL, False), (4 * ORIGINAL, True)])
def test_longrope_within_and_beyond_the_original_context(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], context: int, warned: bool
) -> None:
    """As transformers computes a sequence of that length: short factors within it, long ones beyond.

    The evaluation is transformers' formula for a sequence as long as the context.
    """
    folder = _longrope(tmp_path, context)
    assert ("long rope factors" in capfd.readouterr().err) == warned
    spec, parameters = decoder(folder)
    scaling = spec.layers[0].rope_scaling
    assert scaling is not None
    assert scaling.attention_factor > 1
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q0f32"])
    ids = np.resize(_reference("phi3")["input_ids"], context - 8)
    want = evaluate.logits(spec, stored, ids, context=context)
    other = evaluate.logits(spec, stored, ids, context=5 * ORIGINAL - context)
    assert _error(other[-1], want[-1]) > 100 * TOLERANCE  # which factors it is matters

    model = LocalModel(folder, folder / LIBRARY["cpu"])
    for start in range(0, ids.size, 31):
        found = model.step(ids[start : start + 31].tolist())
        assert _error(found, want[min(start + 31, ids.size) - 1]) < TOLERANCE


def test_a_library_for_more_tokens_than_learned_positions_is_refused(tmp_path: Path) -> None:
    folder, output = exports.weights("gpt2", "q0f32"), tmp_path / LIBRARY["cpu"]
    with pytest.raises(UsageError, match="positions of this model"):
        compile_library(folder, output, device="cpu", overrides={"context_window_size": 4096})
    assert not output.exists()


def _of_layers(spec: DecoderSpec, **changes: Any) -> DecoderSpec:
    return replace(spec, layers=tuple(replace(layer, **changes) for layer in spec.layers))


# What mlc_llm's own code for a family computes, where that is not what transformers does.
MLC_LLM: dict[str, tuple[str, Callable[[DecoderSpec], DecoderSpec]]] = {
    "gemma 2 without the softcap of its attention": (
        "gemma2",
        lambda spec: replace(spec, attention_softcap=None),
    ),
    "gemma 2 without the windows of its layers": ("gemma2", lambda spec: _of_layers(spec, window=None)),
    "gemma 3 with one rope base for all layers": (
        "gemma3_text",
        lambda spec: _of_layers(spec, rope_theta=1e6),
    ),
    "llama 3 as saved by transformers 5, without its rope base and scaling": (
        "llama3_rope",
        lambda spec: _of_layers(spec, rope_theta=1e4, rope_scaling=None),
    ),
}


@pytest.mark.parametrize("difference", MLC_LLM)
def test_transformers_is_right_where_mlc_llm_differs(difference: str) -> None:
    """The compiled library gives transformers' logits, which those of mlc_llm's decoder are far from."""
    model, changed = MLC_LLM[difference]
    folder = exports.export(model, "q4f32_1", "cpu")
    spec, parameters = decoder(folder)
    reference = _reference(model)
    ids, want = reference["input_ids"], reference["logits_q4f32_1"]
    found = LocalModel(folder, folder / LIBRARY["cpu"]).step(ids.tolist())
    assert _error(found, want[-1]) < TOLERANCE
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q4f32_1"])
    assert _error(evaluate.logits(changed(spec), stored, ids)[-1], want[-1]) > 100 * TOLERANCE
