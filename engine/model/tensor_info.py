"""Where one tensor of a weight file lies, whatever the format of the file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError

if TYPE_CHECKING:
    # Imported for real where tensors are read: a front end shows its first screen without waiting for it.
    import numpy as np

ITEMSIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Bytes an element of every dtype that fills whole bytes (https://github.com/huggingface/safetensors#format)."""


@cache
def _readable() -> "dict[str, np.dtype[Any]]":
    """The dtypes that weights are read as."""
    import ml_dtypes
    import numpy as np

    floats = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
    return {**floats, "I32": np.dtype("<i4")}  # words of packed integers


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies: `dtype` as safetensors spells it ("BF16"), `offset` in bytes into `file`.

    `strides`, in elements, are None where the elements lie one after the other in C order; only
    PyTorch stores tensors otherwise. `nbytes` is the tensor's own size, however it lies.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    offset: int
    nbytes: int
    strides: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def numpy_dtype(self) -> "np.dtype[Any]":
        """bfloat16, float16, float32 or int32; UsageError for any other dtype."""
        if dtype := _readable().get(self.dtype):
            return dtype
        raise self.unreadable()

    def check_dtype(self, *, integers: bool) -> None:
        """Raise UsageError unless the dtype is int32 for `integers`, a readable float otherwise."""
        if (self.dtype == "I32") != integers or self.dtype not in _readable():
            raise self.unreadable()

    def unreadable(self) -> UsageError:
        """What to tell of a weight in this dtype."""
        return UsageError(
            f"Tensor {self.name} in {self.file.name} has dtype {self.dtype}.",
            why="Weights are read as BF16, F16 and F32; other dtypes are those of checkpoints that "
            "are quantized already.",
            remedy="Start from the model's original checkpoint in BF16, F16 or F32.",
        )


def is_array_shape(shape: Sequence[int]) -> bool:
    """Whether an array can have `shape`, be it an empty one."""
    return prod(n or 1 for n in shape) < 2**60 and len(shape) <= 32
