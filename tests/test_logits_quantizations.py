"""Every quantization on the CPU: the library's logits are those of the weights that its export stores.

The stored weights are widened by `quantization_reference`, and evaluated in float32 with numpy.
"""

import numpy as np
import pytest
from exports import GOLDEN, LIBRARY, QUANTIZATIONS, decoder, export
from safetensors.numpy import load_file

from engine.embedded import evaluate
from engine.embedded.local import LocalModel

OTHERS = [q for q in QUANTIZATIONS if q not in ("q0f32", "q4f32_1", "q0f16", "q4f16_1", "q4f16_autoawq")]
# The KV cache is rounded to the model dtype; nothing else is.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


@pytest.mark.parametrize("quantization", OTHERS)
@pytest.mark.parametrize("model", ["gemma3_text", "llama"])
def test_logits_are_those_of_the_stored_weights(model: str, quantization: str) -> None:
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
    assert max(errors) < TOLERANCE[QUANTIZATIONS[quantization].model_dtype]
