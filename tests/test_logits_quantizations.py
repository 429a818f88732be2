"""Every quantization on the CPU: the library's logits are those of the weights that its export stores.

The stored weights are widened by `quantization_reference`, and evaluated in float32 with numpy.
"""

from dataclasses import replace

import numpy as np
import pytest
from exports import GOLDEN, LIBRARY, QUANTIZATIONS, decoder, export
from safetensors.numpy import load_file

from engine.embedded import evaluate
from engine.embedded.local import LocalModel

OTHERS = [q for q in QUANTIZATIONS if q not in ("q0f32", "q4f32_1", "q0f16", "q4f16_1", "q4f16_autoawq")]
# The KV cache is rounded to the model dtype; nothing else is.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}


@pytest.mark.parametrize("quantization", OTHERS)
@pytest.mark.parametrize("model", ["gemma3_text", "llama"])
def test_logits_are_those_of_the_stored_weights(model: str, quantization: str) -> None:
    assert worst(model, quantization) < TOLERANCE[QUANTIZATIONS[quantization].model_dtype]


@pytest.mark.parametrize("quantization", ["q3f16_0", "q3f16_1", "q4f16_0", "q4f16_2"])
def test_in_float32_nothing_but_rounding_is_left(quantization: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same form in float32, which is no quantization of mlc_llm's: no rounded cache hides a mistake."""
    name = quantization.replace("f16", "f32")
    same = replace(QUANTIZATIONS[quantization], name=name, model_dtype="float32")
    monkeypatch.setitem(QUANTIZATIONS, name, same)
    assert worst("gemma3_text", name) < TOLERANCE["float32"]


def worst(model: str, quantization: str) -> float:
    """The largest error of any logit, as a fraction of the logits' standard deviation."""
    folder = export(model, quantization, "cpu")
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS[quantization])
    ids = load_file(GOLDEN / model / "reference.safetensors")["input_ids"]
    want = evaluate.logits(spec, stored, ids)
    local = LocalModel(folder, folder / LIBRARY["cpu"])
    errors: list[float] = []
    for chunk in (len(ids), 17, 1):
        local.reset()
        for start in range(0, len(ids), chunk):
            found = local.step(ids[start : start + chunk].tolist())
            errors.append(float(np.abs(found - want[min(start + chunk, len(ids)) - 1]).max() / want.std()))
    return max(errors)
