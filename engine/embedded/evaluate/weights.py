"""The weights that an evaluation reads: those of an export as they are stored, or those of its source."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from engine.catalog import Quantization
from engine.embedded.evaluate.formulas import F32
from engine.embedded.spec import Parameter
from engine.errors import StageError
from engine.layout import MANIFEST_NAME

_AWQ_PARTS = ("qweight", "qzeros", "scales")
_CONVERT_AGAIN = "Convert the weights again."


class Matrix(Protocol):
    """A parameter that gives its rows as float32: all, or those an index or a slice names."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole parameter, as it was before quantization."""

    def __getitem__(self, rows: Any, /) -> F32: ...


Weights = Mapping[str, Matrix]
"""Parameters by their role; quantized ones are whole matrices."""


class _Plain:
    """A tensor in memory of any float dtype, widened to float32 where it is read."""

    def __init__(self, tensor: npt.NDArray[Any], plus_one: bool) -> None:
        self._tensor = tensor
        self._one = np.float32(plus_one)
        self.shape: tuple[int, ...] = tensor.shape

    def __getitem__(self, rows: Any, /) -> F32:
        return np.asarray(self._tensor[rows], np.float32) + self._one


class _Stored:
    """One tensor of a shard; the file is open only while rows are read, so it can be replaced."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        as_bf16 = record["dtype"] == "float32" and record.get("format") == "f32-to-bf16"
        self._dtype = np.dtype(ml_dtypes.bfloat16 if as_bf16 else record["dtype"])
        self._path, self._offset = path, record["byteOffset"]
        self.shape: tuple[int, ...] = tuple(record["shape"])
        needed = math.prod(self.shape) * self._dtype.itemsize
        if needed != record["nbytes"]:
            raise StageError(
                f"{record['name']} has {record['nbytes']} bytes, but its shape needs {needed}.",
                remedy=_CONVERT_AGAIN,
            )
        end = self._offset + needed
        if not path.is_file() or path.stat().st_size < end:
            raise StageError(
                f"{path} is missing, or shorter than the {end} bytes that {record['name']} needs.",
                remedy=_CONVERT_AGAIN,
            )

    def read(self, rows: Any) -> npt.NDArray[Any]:
        return np.array(np.memmap(self._path, self._dtype, "r", self._offset, self.shape)[rows])

    def __getitem__(self, rows: Any, /) -> F32:
        return self.read(rows).astype(np.float32)


class _Grouped:
    """Group-quantized rows: integers packed lowest first into uint32 words, one scale a group.

    weight = (integer - max_int) * scale, as mlc_llm's group quantization stores it along in_features.
    Words and scales are [rows, ...], or where `transposed` [..., rows].
    """

    def __init__(
        self,
        words: _Stored,
        scale: _Stored,
        columns: int,
        quantization: Quantization,
        *,
        transposed: bool,
    ) -> None:
        assert quantization.bits is not None
        self._words, self._scale, self._transposed = words, scale, transposed
        self._group, self._max_int = quantization.group_size, quantization.max_int
        self._mask = np.uint32((1 << quantization.bits) - 1)
        self._shifts = np.arange(quantization.elements_per_word, dtype=np.uint32) * np.uint32(
            quantization.bits
        )
        self.shape: tuple[int, ...] = (words.shape[1 if transposed else 0], columns)

    def __getitem__(self, rows: Any, /) -> F32:
        if self._transposed:
            words, scale = (stored.read((slice(None), rows)).T for stored in (self._words, self._scale))
            scale = scale.astype(np.float32)
        else:
            words, scale = self._words.read(rows), self._scale[rows]
        integers = ((words[..., None] >> self._shifts) & self._mask).reshape(*words.shape[:-1], -1)
        columns = self.shape[1]
        centred: F32 = integers[..., :columns].astype(np.float32) - np.float32(self._max_int)
        spread: F32 = np.repeat(scale, self._group, axis=-1)[..., :columns]
        centred *= spread
        return centred


class _Awq:
    """Rows of an AWQ matrix: (integer - zero) * scale, all three stored transposed, [in_features, ...].

    A word holds 8 neighbours along out_features, in the order 0 2 4 6 1 3 5 7, the first lowest.
    """

    _SHIFTS = np.array([0, 4, 1, 5, 2, 6, 3, 7], np.uint32) * np.uint32(4)

    def __init__(self, words: _Stored, zeros: _Stored, scales: _Stored) -> None:
        self._parts = words, zeros, scales
        self.shape: tuple[int, ...] = (scales.shape[1], words.shape[0])

    def __getitem__(self, rows: Any, /) -> F32:
        words, zeros, scales = (part.read(slice(None)) for part in self._parts)
        group = words.shape[0] // scales.shape[0]
        integers, spread = self._unpacked(words)[:, rows], self._unpacked(zeros)[:, rows]
        centred = integers - np.repeat(spread, group, axis=0)
        spread_scales = np.repeat(scales[:, rows].astype(np.float32), group, axis=0)
        return np.asarray((centred * spread_scales).T)

    def _unpacked(self, words: npt.NDArray[Any]) -> F32:
        integers = (words[..., None] >> self._SHIFTS) & np.uint32(15)
        return np.asarray(integers.reshape(words.shape[0], -1).astype(np.float32))


def stored_weights(folder: Path, parameters: Sequence[Parameter], quantization: Quantization) -> Weights:
    """The weights of an export, read from its shards row by row as they are asked for.

    `parameters` are those of the family, in their shapes before quantization. Raises StageError for
    a record that its shard or its shape contradicts, and for a parameter that is not there.
    """
    try:
        cache = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        records = [(shard["dataPath"], record) for shard in cache["records"] for record in shard["records"]]
        found = {record["name"]: _Stored(folder / shard, record) for shard, record in records}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"{folder / MANIFEST_NAME} cannot be read.", why=repr(error), remedy=_CONVERT_AGAIN
        ) from error
    weights: dict[str, Matrix] = {}
    for parameter in parameters:
        base = parameter.name.removesuffix(".weight")
        words, scale = found.get(f"{base}.q_weight"), found.get(f"{base}.q_scale")
        if parameter.name in found:
            weight: Matrix = found[parameter.name]
        elif words and scale and quantization.bits:
            # Embeddings, whose rows are looked up, are never transposed.
            transposed = quantization.layout == "KN" and parameter.kind in ("linear", "head")
            weight = _Grouped(words, scale, parameter.shape[1], quantization, transposed=transposed)
        elif quantization.from_awq and all(f"{base}.{part}" in found for part in _AWQ_PARTS):
            weight = _Awq(*(found[f"{base}.{part}"] for part in _AWQ_PARTS))
        else:
            raise StageError(
                f"{folder / MANIFEST_NAME} has no parameter {parameter.name}.", remedy=_CONVERT_AGAIN
            )
        if weight.shape != parameter.shape:
            raise StageError(
                f"{parameter.name} is stored with shape {weight.shape}, not {parameter.shape}.",
                remedy=_CONVERT_AGAIN,
            )
        weights[parameter.role] = weight
    return weights


class SourceWeights(Mapping[str, Matrix]):
    """The weights of a Hugging Face model, joined as they are read: `tensor(name)` gives one tensor.

    Norms of a `plus_one` family are 1 + w in float32, which is what transformers computes.
    """

    def __init__(self, parameters: Sequence[Parameter], tensor: Callable[[str], npt.NDArray[Any]]) -> None:
        self._parameters = {parameter.role: parameter for parameter in parameters}
        self._tensor = tensor

    def __getitem__(self, role: str) -> Matrix:
        parameter = self._parameters[role]
        parts = [self._tensor(source) for source in parameter.sources]
        if parameter.transpose:
            parts = [part.T for part in parts]
        if heads := parameter.interleaved_heads:
            by_head = parts[0].reshape(heads, 3, -1, *parameter.shape[1:])
            parts = [by_head.swapaxes(0, 1).reshape(parameter.shape)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return _Plain(joined, parameter.plus_one)

    def __contains__(self, role: object) -> bool:
        return role in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)
