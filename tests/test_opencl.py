"""A library for OpenCL run as a whole: its kernels by PoCL, which makes an OpenCL device of this processor.

The kernels of CUDA and Metal libraries are written from the same bodies.
"""

import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from exports import GOLDEN, weights
from numpy.typing import NDArray
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from opencl_kernels.device import OpenCL

TOLERANCE = 1e-4
"""Of the logits' standard deviation, as for the CPU's own kernels."""
WINDOW = 16

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="PoCL's wheels are for Linux on x86-64",
)


@pytest.fixture(scope="module")
def opencl() -> "Iterator[OpenCL]":
    from opencl_kernels.device import OpenCL

    with OpenCL() as device:
        yield device


# Between them: windows and norms of queries, biases and partial rotation, weights in float32.
@pytest.mark.parametrize(
    ("model", "quantization"), [("gemma3_text", "q4f32_1"), ("gpt_neox", "q4f32_1"), ("llama", "q0f32")]
)
def test_logits_past_the_window_and_greedy_tokens(opencl: "OpenCL", model: str, quantization: str) -> None:
    """A chunk longer than the window, a short one on the cache, token by token; then a greedy run."""
    folder = weights(model, quantization)
    reference = load_file(GOLDEN / model / "reference.safetensors")
    ids, want = reference["input_ids"].tolist(), reference[f"logits_{quantization}"]
    local = opencl.model(folder, _config(folder))
    chunk = WINDOW + 15
    errors = [_error(local.step(ids[:chunk]), want, chunk)]
    errors.append(_error(local.step(ids[chunk : chunk + 5]), want, chunk + 5))
    for n in range(chunk + 5, len(ids)):
        errors.append(_error(local.step(ids[n : n + 1]), want, n + 1))
    assert max(errors) < TOLERANCE
    assert opencl.launches["attention_decode_paged_kernel"] >= len(errors) - 2

    if quantization == "q4f32_1":
        local.reset()
        logits, said = local.step(reference["prompt_ids"].tolist()), []
        for _ in reference["greedy_q4f32_1"]:
            said.append(int(logits.argmax()))
            logits = local.step(said[-1:])
        assert said == reference["greedy_q4f32_1"].tolist()


def _config(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "mlc-chat-config.json").read_text(encoding="utf-8")))


def _error(found: NDArray[np.float32], want: NDArray[np.float32], tokens: int) -> float:
    return float(np.abs(found - want[tokens - 1]).max() / want.std())
