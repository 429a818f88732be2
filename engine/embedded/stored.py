"""How a parameter is stored under a quantization: the names, shapes and dtypes of an export.

Group quantization along in_features, rows kept (layout NK), as mlc_llm's `GroupQuantize` stores it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from engine.catalog import Quantization
from engine.embedded.spec import Parameter


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One record of tensor-cache.json; `dtype` is what the compiled functions take.

    float32 tensors lie on disk as bfloat16 and are widened when loaded.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def is_quantized(parameter: Parameter, quantization: Quantization) -> bool:
    """Whether `parameter` is stored as integers and scales; norms never are."""
    if quantization.bits is None or parameter.kind in ("norm", "bias"):
        return False
    return parameter.kind == "linear" or quantization.quantize_embedding


def stored_tensors(parameter: Parameter, quantization: Quantization) -> tuple[StoredTensor, ...]:
    """The one or two tensors that `parameter` becomes.

    A matrix [N, K] becomes q_weight uint32 [N, groups * words per group] and q_scale [N, groups].
    """
    if not is_quantized(parameter, quantization):
        return (StoredTensor(name=parameter.name, shape=parameter.shape, dtype=quantization.model_dtype),)
    rows, columns = parameter.shape
    groups = ceil(columns / quantization.group_size)
    words = groups * (quantization.group_size // quantization.elements_per_word)
    base = parameter.name.removesuffix(".weight")
    return (
        StoredTensor(name=f"{base}.q_weight", shape=(rows, words), dtype="uint32"),
        StoredTensor(name=f"{base}.q_scale", shape=(rows, groups), dtype=quantization.model_dtype),
    )


def all_stored_tensors(
    parameters: Iterable[Parameter], quantization: Quantization
) -> tuple[StoredTensor, ...]:
    """Every stored tensor, in the order in which compiled functions take them."""
    return tuple(t for p in parameters for t in stored_tensors(p, quantization))
