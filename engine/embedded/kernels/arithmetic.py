"""Scalar functions that shaders lack or do not compute safely, as TIR expressions on float32."""

import math
import struct
from typing import Any

from tvm import te, tirx
from tvm.script import tirx as T

from engine.embedded.kernels import script

# Numerator and denominator, in x^2 from the highest power down, of the rational function that Eigen
# and XLA use for erf in float32; beyond +-4 the function is +-1 to the last bit.
_ERF_ODD = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_EVEN = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)

# pi/2 in two float32 parts: 201/128 has few bits, so k * 4 * HIGH is exact for every turn k in use.
_QUARTER_HIGH = 1.5703125
_QUARTER_LOW = math.pi / 2 - _QUARTER_HIGH
# (cos(x) - 1) / x^2 and (sin(x) - x) / x^3 on [-pi/4, pi/4], in x^2: those of the Cephes library.
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2, -0.5)
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)


def exact(value: float) -> Any:
    """`value` rounded to float32 once: TVM writes float constants into shaders with seven digits."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return tirx.reinterpret("float32", tirx.const(bits, "uint32"))


def tanh(x: Any) -> Any:
    """Hyperbolic tangent as 1 - 2 / (exp(2x) + 1), for any x.

    Some shader compilers turn WGSL's own tanh of a large argument into inf / inf. Here the argument of
    exp is bounded from above; far below zero it underflows to 0, and the limit is right.
    """
    one, two = tirx.const(1, "float32"), tirx.const(2, "float32")
    return one - two / (tirx.exp(two * tirx.min(x, tirx.const(20, "float32"))) + one)


def erf(x: Any) -> Any:
    """The error function, to a few units in the last place; WGSL has none."""
    bounded = tirx.max(tirx.min(x, tirx.const(4, "float32")), tirx.const(-4, "float32"))
    square = bounded * bounded
    return bounded * _polynomial(square, _ERF_ODD) / _polynomial(square, _ERF_EVEN)


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    """Horner's scheme, the highest power first."""
    value = exact(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + exact(coefficient)
    return value


def _without(angle: Any, turns: Any, quarters: int) -> Any:
    """`angle` less `turns` times that many quarters of a turn."""
    return (angle - turns * exact(quarters * _QUARTER_HIGH)) - turns * exact(quarters * _QUARTER_LOW)


def _of_quarter(rest: Any, quarter: Any, quarters: Any) -> Any:
    """`wave` of `rest`, in [-pi/4, pi/4], plus so many a `quarter`."""
    square, one = rest * rest, tirx.const(1, "float32")
    cosine = one + square * _polynomial(square, _COS)
    sine = rest + rest * square * _polynomial(square, _SIN)
    # cos, -sin, -cos, sin of what is left, as the angle lies in one quarter or the next
    k = tirx.bitwise_and(quarter.astype("int32") - quarters, tirx.const(3, "int32"))
    value = tirx.Select(tirx.bitwise_and(k, tirx.const(1, "int32")) == 1, sine, cosine)
    return tirx.Select(tirx.any(k == 1, k == 2), -value, value)


def wave(angle: Any, quarters: Any) -> Any:
    """cos(angle - quarters * pi/2): the cosine for 0 quarters, the sine for 1, of any float32 angle.

    WGSL promises of its own cos and sin only an error below 2^-11, and that within [-pi, pi], which is
    what software devices keep to: too little for rotations. Whole turns are taken off first, then
    quarters; what is left lies in [-pi/4, pi/4].
    """
    rest = _without(angle, te.round(angle * exact(0.5 / math.pi)), 4)
    quarter = te.round(rest * exact(2 / math.pi))
    return _of_quarter(_without(rest, quarter, 1), quarter, quarters)


@script.macro
def cosine_and_sine(out, angle):
    """`wave` of both kinds in `out` [0] and [1], float32 [3]: step by step, for kernels.

    As one expression of nested parts it fills a page of shader code wherever it is used.
    """
    out[0] = angle
    out[1] = T.round(out[0] * exact(0.5 / math.pi))
    out[0] = _without(out[0], out[1], 4)
    out[1] = T.round(out[0] * exact(2 / math.pi))
    out[2] = _without(out[0], out[1], 1)
    out[0] = _of_quarter(out[2], out[1], 0)
    out[1] = _of_quarter(out[2], out[1], 1)
