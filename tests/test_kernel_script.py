"""The decorators of kernels give what those of TVM give."""

from typing import Any

import tvm
from tvm.script import tirx as T

from engine.embedded.kernels import script

SIZE = 5


def _body(macro: Any) -> Any:
    """A macro that uses another, and a variable of where it is defined."""
    scale = 3

    @macro
    def scaled(x, y, i):
        with T.sblock("scaled"):
            y[i] = x[i] * T.float32(scale)

    @macro
    def body(x, y):
        for i in T.serial(SIZE):
            scaled(x, y, i)
            scaled(y, y, i)

    return body


def test_kernels_are_those_of_tvm() -> None:
    body = _body(T.macro)

    @T.prim_func(private=True, s_tir=True)
    def theirs(vx: T.handle, vy: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(vx, (SIZE,), "float32")
        y = T.match_buffer(vy, (SIZE,), "float32")
        body(x, y)

    body = _body(script.macro)

    @script.prim_func(private=True, s_tir=True)
    def ours(vx: T.handle, vy: T.handle):
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(vx, (SIZE,), "float32")
        y = T.match_buffer(vy, (SIZE,), "float32")
        body(x, y)

    tvm.ir.assert_structural_equal(ours, theirs)
    assert dict(ours.attrs) == {"tirx.noalias": True, "s_tir": True}
