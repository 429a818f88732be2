"""Indices of 32 bits in the kernels of phones and Macs, many of whose GPUs compute 64 bits in software.

TVM's sizes are of 64 bits, and so is what is computed with them. Where all tensors of a kernel are small
enough nothing is lost in 32: TVM's own pass, `ForceNarrowIndexToInt32`, does it without asking, and mlc_llm
runs that for every device but CUDA. Here sizes are looked at first.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.tirx.analysis import undefined_vars

LIMIT = 2**30
"""Elements of the largest tensor: half of what 32 bits hold, as the last tile of a kernel reaches past it."""
KERNELS = ("metal", "opencl")
"""WGSL has no integers of 64 bits, so TVM writes none; NVIDIA's GPUs add them in two instructions."""
_OF_CACHE = ("attention_", "kv_cache_")
_PACKED = 10
"""Values that a uint32 of stored weights holds at most; kernels count values, too."""


def narrowed(mod: tvm.IRModule, cache_elements: int | None) -> tvm.IRModule:
    """`mod` with 32 bits in kernels whose tensors have at most LIMIT elements.

    The tensors are those of its relax functions, with sizes at their stated bounds, and for kernels of the
    cache its pages: `cache_elements` of one layer, None where nobody knows. Lists of what a step changes in
    logits have no stated bound; they are no longer than the logits. For use before CallTIRRewrite, as scalars
    of a kernel change their type.
    """
    largest = max(_elements(mod), default=0)
    tensors, cache = largest <= LIMIT, cache_elements is not None and cache_elements <= LIMIT
    chosen = {
        gv: func
        for gv, func in mod.functions_items()
        if isinstance(func, tirx.PrimFunc) and tensors and (cache or not gv.name_hint.startswith(_OF_CACHE))
    }
    if not chosen:
        return mod
    mod = mod.clone()
    mod.update(tirx.transform.ForceNarrowIndexToInt32()(tvm.IRModule(chosen)))
    return mod


def _elements(mod: tvm.IRModule) -> Iterator[int]:
    """The sizes of all tensors that the relax functions of `mod` have."""
    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            bounds = (func.attrs or {}).get("tir_var_upper_bound", {})
            for tensor in _tensors(func):
                packed = _PACKED if tensor.dtype == "uint32" else 1
                yield packed * _most(tensor.shape.values, bounds)


def _tensors(func: relax.Function) -> Iterator[relax.TensorType]:
    variables: dict[int, relax.Var] = {}  # a tuple of all weights is visited at each of its uses

    def visit(expr: Any) -> None:
        if isinstance(expr, relax.Var):
            variables[hash(expr)] = expr

    relax.analysis.post_order_visit(func, visit)
    found: list[Any] = [variable.ty for variable in variables.values()]
    while found:
        kind = found.pop()
        if isinstance(kind, relax.TupleType):
            found.extend(kind.fields)
        elif isinstance(kind, relax.TensorType) and isinstance(kind.shape, relax.ShapeExpr):
            yield kind


def _most(sizes: Any, bounds: Mapping[str, int]) -> int:
    """The product of `sizes` with variables at their `bounds`; 1 for one that has none."""
    analyzer = tvm.sym.Analyzer()
    for variable in {v for size in sizes for v in undefined_vars(size)}:
        extent = int(bounds.get(variable.name, 1)) + 1
        analyzer.bind(variable, tvm.ir.Range.from_min_extent(0, extent))
    return math.prod(analyzer.const_int_bound(size).max_value for size in sizes)
