"""Kernels whose inputs depend on the model, written once with all of them."""

import tvm
from tvm.tirx.analysis import undefined_vars


def without_unused(func: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """`func` without the parameters that its body leaves alone.

    TVMScript takes a fixed list of parameters; a kernel is written with every input that some model
    has, and is called with those that a body has a use for.
    """
    used = undefined_vars(func.body, [])
    params = [p for p in func.params if any(p.same_as(variable) for variable in used)]
    return tvm.tirx.PrimFunc(params, func.body, func.ret_type, func.attrs, func.span)
