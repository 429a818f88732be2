"""Scalar functions that shaders lack or do not compute safely, as TIR expressions on float32."""

import struct
from typing import Any

from tvm import tirx

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
