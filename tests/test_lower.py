"""What a lowered function allocates is counted: what memory was planned for, and what it returns."""

import pytest
import tvm
from tvm import relax, tirx

from engine.embedded import lower
from engine.errors import StageError

LLVM = tvm.target.Target({"kind": "llvm"})


def _planned(size: object, bounds: dict[str, int], *, twice: bool = True) -> dict[str, int]:
    """Of f(x) = x + x (+ x), `size` rows of four float32."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((size, 4), "float32"))
    with builder.function("f", [x], attrs={"tir_var_upper_bound": bounds}):
        with builder.dataflow():
            total = builder.emit(relax.op.add(x, x))
            total = builder.emit_output(relax.op.add(total, x) if twice else total)
        builder.emit_func_output(total)
    return lower.planned_bytes(lower.lower(builder.get(), LLVM))


def test_fixed_sizes_are_counted() -> None:
    assert _planned(10, {}) == {"f": 2 * 160}
    assert _planned(10, {}, twice=False) == {"f": 160}


def test_sizes_that_follow_the_input_count_at_their_bound() -> None:
    assert _planned(tirx.Var("n", "int64"), {"n": 10}) == {"f": 2 * 160}
    assert _planned(tirx.Var("n", "int64") * 2, {"n": 10}) == {"f": 2 * 320}


@pytest.mark.parametrize("bounds", [{}, {"m": 10}])
def test_a_size_without_a_bound_is_refused(bounds: dict[str, int]) -> None:
    """Its memory would be asked for in the middle of a step, as much as an input is long."""
    with pytest.raises(StageError, match="f allocates"):
        _planned(tirx.Var("n", "int64"), bounds)
