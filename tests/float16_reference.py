"""What a library of a float16 quantization computes: float32, but for what passes through its KV cache.

Queries, keys, values and what attention makes of them have the model dtype; everything else is float32.
"""

from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from engine.embedded import evaluate
from engine.embedded.evaluate import formulas

F32 = NDArray[np.float32]
_attention = formulas.attention


def logits(*args: Any, **kwargs: Any) -> F32:
    """`evaluate.logits` with that rounding."""
    with mock.patch.object(formulas, "attention", _rounding):
        return evaluate.logits(*args, **kwargs)


def _rounding(q: F32, k: F32, v: F32, **kwargs: Any) -> F32:
    return _half(_attention(_half(q), _half(k), _half(v), **kwargs))


def _half(x: F32) -> F32:
    return x.astype(np.float16).astype(np.float32)
