"""exp and exp2 of kernels on the CPU, as plain arithmetic: what LLVM makes of them is a library call a lane.

e^r = sum(r^i / i!) up to r^7 for |r| <= ln(2) / 2, which leaves 1e-8 out; powers of two are made in the
exponent's bits. Too small and too large give 0 and infinity, NaN gives NaN.
"""

from functools import cache
from math import factorial, log
from typing import Any

from tvm import te, tirx

# ln(2) in two float32 parts: 355/512 has few bits, so its product with any exponent is exact.
_LN2_HIGH = 355 / 512
_LN2_LOW = log(2) - _LN2_HIGH
_TERMS = 8


@cache  # TVM takes a rule once
def register() -> None:
    """Let TVM compile exp and exp2 to this arithmetic wherever its target is the CPU."""
    for name, lowered in (("tirx.exp", _exp), ("tirx.exp2", _exp2)):
        # Above TVM's own rules, which have level 10 and at most 99.
        tirx.register_intrin_lowering(name, "llvm", f=lowered, level=100)


def _exp(call: Any) -> Any:
    (x,) = call.args
    if not str(x.ty).startswith("float32"):
        return call
    bounded = _between(x, -105, 89.5)
    power = te.round(bounded * _f32(1 / log(2)))
    rest = (bounded - power * _f32(_LN2_HIGH)) - power * _f32(_LN2_LOW)
    return _finished(x, rest, power)


def _exp2(call: Any) -> Any:
    (x,) = call.args
    if not str(x.ty).startswith("float32"):
        return call
    bounded = _between(x, -151, 129)
    power = te.round(bounded)
    return _finished(x, (bounded - power) * _f32(log(2)), power)


def _f32(value: float) -> Any:
    return tirx.const(value, "float32")


def _between(x: Any, low: float, high: float) -> Any:
    return tirx.min(tirx.max(x, _f32(low)), _f32(high))


def _finished(x: Any, rest: Any, power: Any) -> Any:
    """e^`rest` * 2^`power`, in two steps, each a power of two that is a normal number; NaN where x is."""
    value: Any = _f32(1 / factorial(_TERMS - 1))
    for i in reversed(range(_TERMS - 1)):  # Horner's scheme
        value = value * rest + _f32(1 / factorial(i))
    integers, floats = (str(x.ty).replace("float32", name) for name in ("int32", "float32"))
    whole = tirx.Cast(integers, power)
    half = whole >> tirx.const(1, "int32")
    for part in (half, whole - half):
        bits = (part + tirx.const(127, "int32")) << tirx.const(23, "int32")
        value = value * tirx.reinterpret(floats, bits)
    return tirx.Select(x == x, value, x)  # noqa: PLR0124  # NaN alone differs from itself
