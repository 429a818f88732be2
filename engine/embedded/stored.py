"""How a parameter is stored under a quantization: the names, shapes and dtypes of an export.

Group quantization along in_features, in the layout that mlc_llm's `GroupQuantize` stores.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from engine.catalog import Layout, Quantization
from engine.embedded import awq
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
    """Whether `parameter` is stored as integers and scales; only matrices ever are."""
    if quantization.bits is None:
        return False
    return {
        "linear": True,
        "embedding": quantization.quantize_embedding,
        "positions": quantization.quantize_embedding,
        "head": quantization.quantize_final_fc,
    }.get(parameter.kind, False)


def layout(parameter: Parameter, quantization: Quantization) -> Layout | None:
    """The layout of a quantized `parameter`, None for one that is not.

    The rows of embeddings are looked up, so they stay rows.
    """
    if not is_quantized(parameter, quantization):
        return None
    return quantization.layout if parameter.kind in ("linear", "head") else "NK"


def stored_tensors(parameter: Parameter, quantization: Quantization) -> tuple[StoredTensor, ...]:
    """The tensors that `parameter` becomes: one, or words and scales, or for AWQ also zero points.

    A matrix [N, K] becomes q_weight uint32 [N, groups * words per group] and q_scale [N, groups], or
    the transposes of both where the layout is KN. See `engine.embedded.awq` for its three.
    """
    if not is_quantized(parameter, quantization):
        dtype: str = parameter.dtype or quantization.model_dtype
        if parameter.kind == "integers":
            dtype = "uint32"
        return (StoredTensor(name=parameter.name, shape=parameter.shape, dtype=dtype),)
    rows, columns = parameter.shape
    if quantization.from_awq:
        return tuple(
            StoredTensor(name=parameter.name.removesuffix("weight") + name, shape=shape, dtype=dtype)
            for (name, shape), dtype in zip(
                awq.packed_shapes(rows, columns).items(), ("uint32", "uint32", "float16"), strict=True
            )
        )
    groups = ceil(columns / quantization.group_size)
    words = groups * (quantization.group_size // quantization.elements_per_word)
    base = parameter.name.removesuffix(".weight")
    shapes: tuple[tuple[int, int], ...] = ((rows, words), (rows, groups))
    if layout(parameter, quantization) == "KN":
        shapes = ((words, rows), (groups, rows))
    return (
        StoredTensor(name=f"{base}.q_weight", shape=shapes[0], dtype="uint32"),
        StoredTensor(name=f"{base}.q_scale", shape=shapes[1], dtype=quantization.model_dtype),
    )


def all_stored_tensors(
    parameters: Iterable[Parameter], quantization: Quantization
) -> tuple[StoredTensor, ...]:
    """Every stored tensor, in the order in which compiled functions take them."""
    return tuple(t for p in parameters for t in stored_tensors(p, quantization))
