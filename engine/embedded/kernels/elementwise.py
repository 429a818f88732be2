"""What is computed element by element, as tensor expressions for TVM's default schedules."""

from typing import Any

from tvm import te, tirx

from engine.catalog import Quantization
from engine.embedded.kernels.linear.weights import group_reader, plain_reader
from engine.embedded.spec import Activation


def embedding(
    ids: te.Tensor, *weights: te.Tensor, hidden_size: int, quantization: Quantization, scale: float
) -> te.Tensor:
    """Rows `ids` (int32 [n]) of the stored embedding times `scale`: float32 [n, hidden_size]."""
    words, *scales = weights
    read = group_reader(words, scales[0], quantization) if scales else plain_reader(words)
    return te.compute(
        (ids.shape[0], hidden_size),
        lambda i, k: read(ids[i], k) * tirx.const(scale, "float32"),
        name="embedding",
    )


def gated(gate_up: te.Tensor, *, activation: Activation) -> te.Tensor:
    """act(gate) * up for gate_up float32 [n, 2 * intermediate]: [n, intermediate]."""
    size = gate_up.shape[1] // 2
    act = {"silu": _silu, "gelu_tanh": _gelu_tanh}[activation]
    return te.compute(
        (gate_up.shape[0], size),
        lambda i, k: act(gate_up[i, k]) * gate_up[i, size + k],
        name="gated",
    )


def _silu(x: Any) -> Any:
    return x / (tirx.const(1, "float32") + te.exp(-x))


def _gelu_tanh(x: Any) -> Any:
    """`gelu_pytorch_tanh`: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    tanh is written out as 1 - 2 / (exp(2z) + 1): some shader compilers turn WGSL's tanh of a large
    argument into inf/inf. Here exp may overflow to inf and the result is the right limit.
    """
    z = tirx.const(0.7978845608028654, "float32") * (x + tirx.const(0.044715, "float32") * x * x * x)
    one, two = tirx.const(1, "float32"), tirx.const(2, "float32")
    bounded = tirx.min(z, tirx.const(20, "float32"))
    return tirx.const(0.5, "float32") * x * (two - two / (te.exp(two * bounded) + one))


def add(x: te.Tensor, y: te.Tensor) -> te.Tensor:
    """X + y."""
    return te.compute(x.shape, lambda i, k: x[i, k] + y[i, k], name="add")


def last_row(x: te.Tensor) -> te.Tensor:
    """The last row of x [n, k]: [1, k]."""
    return te.compute((1, x.shape[1]), lambda i, k: x[x.shape[0] - 1 + i, k], name="last_row")
