"""What is computed element by element, as tensor expressions for TVM's default schedules."""

from typing import Any

from tvm import te, tirx

from engine.catalog import Quantization
from engine.embedded.kernels.arithmetic import erf, exact, tanh
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


def gated(gate_up: te.Tensor, *bias: te.Tensor, activation: Activation) -> te.Tensor:
    """act(gate) * up for gate_up (+ bias) float32 [n, 2 * intermediate]: [n, intermediate]."""
    size = gate_up.shape[1] // 2
    read = _sum(gate_up, *bias)
    return te.compute(
        (gate_up.shape[0], size),
        lambda i, k: _ACTIVATIONS[activation](read(i, k)) * read(i, size + k),
        name="gated",
    )


def activated(up: te.Tensor, *bias: te.Tensor, activation: Activation) -> te.Tensor:
    """act(up (+ bias)) for float32 [n, intermediate]."""
    read = _sum(up, *bias)
    return te.compute(up.shape, lambda i, k: _ACTIVATIONS[activation](read(i, k)), name="activated")


def _silu(x: Any) -> Any:
    return x / (tirx.const(1, "float32") + te.exp(-x))


def _gelu_tanh(x: Any) -> Any:
    """`gelu_pytorch_tanh`, also `gelu_new`: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""
    z = exact(0.7978845608028654) * (x + exact(0.044715) * x * x * x)
    return tirx.const(0.5, "float32") * x * (tirx.const(1, "float32") + tanh(z))


def _gelu(x: Any) -> Any:
    """`gelu`: x/2 * (1 + erf(x / sqrt(2)))."""
    return tirx.const(0.5, "float32") * x * (tirx.const(1, "float32") + erf(x * exact(0.5**0.5)))


_ACTIVATIONS = {"silu": _silu, "gelu_tanh": _gelu_tanh, "gelu": _gelu}


def _sum(*terms: te.Tensor) -> Any:
    """A reader [i, k] of the sum of matrices [n, k] and biases [k], in float32."""
    return lambda i, k: sum(
        (term[(i, k)[-len(term.shape) :]].astype("float32") for term in terms[1:]),
        terms[0][i, k].astype("float32"),
    )


def add(*terms: te.Tensor) -> te.Tensor:
    """The sum of matrices [n, k], the first of all, and biases [k]: float32 [n, k]."""
    return te.compute(terms[0].shape, _sum(*terms), name="add")


def softcap(logits: te.Tensor, *bias: te.Tensor, cap: float) -> te.Tensor:
    """Cap * tanh((logits + bias) / cap), Gemma 2's bound of its logits [n, vocab]."""
    read = _sum(logits, *bias)
    return te.compute(logits.shape, lambda i, k: exact(cap) * tanh(read(i, k) / exact(cap)), name="softcap")


def last_row(x: te.Tensor) -> te.Tensor:
    """The last row of x [n, k]: [1, k]."""
    return te.compute((1, x.shape[1]), lambda i, k: x[x.shape[0] - 1 + i, k], name="last_row")


def rows_at(x: te.Tensor, positions: te.Tensor) -> te.Tensor:
    """Rows `positions` (int32 [b]) of x [n, k]: [b, k]."""
    return te.compute((positions.shape[0], x.shape[1]), lambda i, k: x[positions[i], k], name="rows_at")
