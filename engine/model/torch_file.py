"""Where the tensors of a file of torch.save lie: `pytorch_model.bin` and its shards.

Since PyTorch 1.6 such a file is a ZIP archive, uncompressed: NAME/data.pkl says which tensor is which
view of which storage, NAME/data/KEY are the storages. Before, it was a row of pickles with the
storages behind them. Neither form is unpickled (see torch_pickle); data is read from its offset.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import UsageError
from engine.model import torch_pickle
from engine.model.files import DOWNLOAD, LFS_MAGIC, disk_errors_told, lfs_pointer, some, truncated
from engine.model.tensor_info import ITEMSIZE, TensorInfo, is_array_shape
from engine.model.torch_view import ForbiddenGlobalError, MalformedPickleError, Storage, View

_ZIP_ENTRY = b"PK\x03\x04"
_PICKLE_LIMIT = 100_000_000
# The numbers with which files of PyTorch before 1.6 begin (torch/serialization.py).
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass(frozen=True)
class _Place:
    """Where the bytes of one storage lie."""

    offset: int
    nbytes: int


def read_header(path: Path) -> tuple[TensorInfo, ...]:
    """What the PyTorch file `path` holds, in the order in which it names its tensors.

    Raises UsageError for code in place of tensors, a Git LFS pointer, and a file that is truncated,
    malformed or of another kind; StageError for what cannot be read.
    """
    try:
        with disk_errors_told(path), path.open("rb") as stream:
            start = stream.read(len(LFS_MAGIC))
            length = path.stat().st_size
            stream.seek(0)
            if start == LFS_MAGIC:
                raise lfs_pointer(path)
            if start.startswith(_ZIP_ENTRY):
                value, places = _read_zip(path, stream, length)
            else:
                value, places = _read_legacy(path, stream, length)
    except ForbiddenGlobalError as error:
        raise _code(path, str(error)) from None
    except MalformedPickleError as error:
        raise _malformed(path, str(error)) from error
    if not isinstance(value, dict):
        raise _no_tensors(path, f"It holds a {type(value).__name__}.")
    views = {name: tensor for name, tensor in value.items() if isinstance(tensor, View)}
    if not views:
        raise _no_tensors(path, f"It holds {some([repr(key) for key in value]) or 'nothing'}.")
    return tuple(_info(path, str(name), view, places) for name, view in views.items())


def _read_zip(path: Path, stream: BinaryIO, length: int) -> tuple[Any, Mapping[str, _Place]]:
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise _malformed(path, "it has no data.pkl")
            folder = pickles[0].removesuffix("data.pkl")
            if entries[pickles[0]].file_size > _PICKLE_LIMIT:
                raise _malformed(path, f"its data.pkl claims {entries[pickles[0]].file_size} bytes")
            if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
                raise _big_endian(path)
            value = torch_pickle.load(BytesIO(archive.read(pickles[0])))
    except zipfile.BadZipFile as error:
        if "not a zip file" in str(error):  # its directory is at the end
            raise UsageError(
                f"{path} is truncated: its table of contents is missing.",
                why="The download or the copy of this file did not finish.",
                remedy=DOWNLOAD,
            ) from error
        raise _malformed(path, str(error)) from error
    except (NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise _malformed(path, str(error)) from error  # compressed or encrypted by something else
    places = {
        name.removeprefix(f"{folder}data/"): _place(path, stream, entry, length)
        for name, entry in entries.items()
        if name.startswith(f"{folder}data/")
    }
    return value, places


def _place(path: Path, stream: BinaryIO, entry: zipfile.ZipInfo, length: int) -> _Place:
    """Where the bytes of `entry` begin: behind its own header, whose length the directory does not tell."""
    stream.seek(entry.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != _ZIP_ENTRY:
        raise _malformed(path, f"{entry.filename} is not where its table of contents says")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise _malformed(path, f"{entry.filename} is compressed or encrypted")
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    offset = entry.header_offset + 30 + name + extra
    if offset + entry.file_size > length:
        raise truncated(path, offset + entry.file_size, length)
    return _Place(offset, entry.file_size)


def _read_legacy(path: Path, stream: BinaryIO, length: int) -> tuple[Any, Mapping[str, _Place]]:
    if stream.read(262)[257:] == b"ustar":
        raise UsageError(
            f"{path} is a PyTorch file of before 2017, which is not read.",
            remedy="Load it with PyTorch and save it again, or choose another copy of the model.",
        )
    stream.seek(0)
    if torch_pickle.load(stream) != _LEGACY_MAGIC or torch_pickle.load(stream) != _LEGACY_PROTOCOL:
        raise _malformed(path, "it does not begin as one")
    system = torch_pickle.load(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _big_endian(path)
    value = torch_pickle.load(stream)
    keys = torch_pickle.load(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _malformed(path, "it does not list its storages")
    itemsizes = {s.key: ITEMSIZE[s.dtype] for s in _storages(value)}
    places: dict[str, _Place] = {}
    offset = stream.tell()
    for key in keys:
        if key not in itemsizes:
            raise _no_tensors(path, "It holds tensors within other things.")
        stream.seek(offset)
        count = int.from_bytes(stream.read(8), "little")
        places[key] = _Place(offset + 8, count * itemsizes[key])
        offset = places[key].offset + places[key].nbytes
        if offset > length:
            raise truncated(path, offset, length)
    return value, places


def _storages(value: Any) -> list[Storage]:
    """The storages of the tensors in a state dict."""
    tensors = value.values() if isinstance(value, dict) else ()
    return [tensor.storage for tensor in tensors if isinstance(tensor, View)]


def _info(path: Path, name: str, view: View, places: Mapping[str, _Place]) -> TensorInfo:
    place, itemsize = places.get(view.storage.key), ITEMSIZE[view.dtype]
    if place is None or place.nbytes != view.storage.count * ITEMSIZE[view.storage.dtype]:
        raise _malformed(path, f"the data of tensor {name} is missing or of another size")
    size = prod(view.shape)
    reach = sum((n - 1) * step for n, step in zip(view.shape, view.strides, strict=True)) + 1 if size else 0
    if not is_array_shape(view.shape) or (view.offset + reach) * itemsize > place.nbytes:
        raise _malformed(path, f"tensor {name} of {view.dtype} {list(view.shape)} reaches beyond its data")
    return TensorInfo(
        name=name,
        shape=view.shape,
        dtype=view.dtype,
        file=path,
        offset=place.offset + view.offset * itemsize,
        nbytes=size * itemsize,
        strides=None if _is_contiguous(view) else view.strides,
    )


def _is_contiguous(view: View) -> bool:
    expected = 1
    for n, step in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if n != 1 and step != expected:
            return prod(view.shape) == 0
        expected *= n
    return True


def _malformed(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is no valid PyTorch file: {what}.", remedy=DOWNLOAD)


def _big_endian(path: Path) -> UsageError:
    return UsageError(
        f"{path} was written on a big-endian machine.",
        remedy="Take the model in safetensors, or save it again on a machine of today.",
    )


def _code(path: Path, name: str) -> UsageError:
    return UsageError(
        f"{path} names {name}, which is no part of a tensor: it was not loaded.",
        why="A PyTorch file is a Python pickle, which can run any program when it is loaded the usual way; "
        "here only tensors are read from it, and nothing is run.",
        remedy="Take the model in safetensors. If you trust this file, load it with PyTorch and save the "
        "tensors alone: model.save_pretrained(folder, safe_serialization=True).",
    )


def _no_tensors(path: Path, found: str) -> UsageError:
    return UsageError(
        f"{path} does not hold a model's tensors by name.",
        why=f"{found} A checkpoint of a training run keeps more than weights, and keeps them deeper.",
        remedy="Save the model itself: model.save_pretrained(folder, safe_serialization=True).",
    )
