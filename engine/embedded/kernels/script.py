"""TVMScript's decorators as kernels use them, at a fraction of the time.

TVM's own read, at every use, the source around every frame of the stack: a sixth of what compiling for a
browser takes. They look for a class around the function, which no kernel has, and for the parser that a
macro is used by, for which the frames themselves do.
"""

import sys
from collections.abc import Callable
from typing import Any

import tvm
from tvm.script import tirx as T
from tvm.script.parser._core import Parser, parse, scan_macro, utils
from tvm.tirx.script.parser.entry import TIRMacro


def prim_func(*, private: bool, s_tir: bool) -> Callable[[Callable[..., Any]], tvm.tirx.PrimFunc]:
    """T.prim_func; its parser reads the arguments from the source."""
    del private, s_tir

    def decorate(function: Callable[..., Any]) -> tvm.tirx.PrimFunc:
        return parse(function, utils.inspect_function_capture(function))

    # By which the parser knows the language.
    decorate.dispatch_token = T.prim_func.dispatch_token  # type: ignore[attr-defined]
    return decorate


def macro(function: Callable[..., Any]) -> Callable[..., Any]:
    """T.macro: names are those of where `function` is defined."""
    found = _Macro(*scan_macro(function, utils.inspect_function_capture(function)), function, hygienic=True)

    def expand(*args: Any, **kwargs: Any) -> Any:
        return found(*args, **kwargs)

    return expand


class _Macro(TIRMacro):  # type: ignore[misc]  # TVM has no types
    def _find_parser_def(self) -> Parser:
        frame = sys._getframe()
        while self.parser_object_name not in frame.f_globals:
            assert frame.f_back is not None, "a macro is used by a kernel"
            frame = frame.f_back
        return frame.f_globals[self.parser_object_name]
