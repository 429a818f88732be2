"""Source tensors whose elements a checkpoint has in another order than an export."""

from collections.abc import Mapping
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from engine.model.tensors import TensorSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

Order = Literal["transposed"] | int


class RearrangedSource(TensorSource):
    """The tensors of `base`, those in `orders` as they are exported.

    `transposed`: a matrix is stored the other way round, as GPT-2's Conv1D has it. A number: the rows
    are [heads, 3, head_dim] with that many heads, as in GPT-NeoX, and become [3, heads, head_dim].
    """

    def __init__(self, base: TensorSource, orders: Mapping[str, Order]) -> None:
        infos = {name: base.info(name) for name in base.names}
        for name, order in orders.items():
            if order == "transposed":
                infos[name] = replace(infos[name], shape=infos[name].shape[::-1])
        super().__init__(infos, base.files)
        self._base = base
        self._orders = dict(orders)
        self._held: tuple[str, NDArray[Any]] | None = None
        self._reading = Lock()

    def read(self, name: str, rows: slice | None = None) -> "NDArray[Any]":
        """As TensorSource.read."""
        order = self._orders.get(name)
        if order is None:
            return self._base.read(name, rows)
        start, stop, _ = (rows or slice(None)).indices(self.info(name).shape[0])
        if order == "transposed":
            return _transposed(self._whole(name)[:, start:stop])
        return self._by_part(name, start, stop, order)

    def _whole(self, name: str) -> "NDArray[Any]":
        """A block of rows lies across the whole matrix in the file, so the one being read is held."""
        with self._reading:
            if self._held is None or self._held[0] != name:
                self._held = None
                self._held = name, self._base.read(name)
            return self._held[1]

    def _by_part(self, name: str, start: int, stop: int, heads: int) -> "NDArray[Any]":
        """Rows `start` to `stop` of all queries, then all keys, then all values."""
        import numpy as np

        head_dim = self.info(name).shape[0] // (3 * heads)
        pieces = []
        while start < stop:
            place, offset = divmod(start, head_dim)
            part, head = divmod(place, heads)
            count = min(head_dim - offset, stop - start)
            first = (head * 3 + part) * head_dim + offset
            pieces.append(self._base.read(name, slice(first, first + count)))
            start += count
        return np.concatenate(pieces)


def _transposed(matrix: "NDArray[Any]") -> "NDArray[Any]":
    """Its transpose, by bands of rows: a band stays in the cache while its columns are read."""
    import numpy as np

    out = np.empty(matrix.shape[::-1], matrix.dtype)
    for first in range(0, matrix.shape[0], 32):
        band = slice(first, first + 32)
        out[:, band] = matrix[band].T
    return out
