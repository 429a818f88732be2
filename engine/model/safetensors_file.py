"""The header of a safetensors file (https://github.com/huggingface/safetensors#format)."""

import json
from math import prod
from pathlib import Path

from engine.errors import UsageError
from engine.model.files import DOWNLOAD, LFS_MAGIC, disk_errors_told, lfs_pointer, truncated
from engine.model.tensor_info import ITEMSIZE, TensorInfo, is_array_shape

_HEADER_LIMIT = 100_000_000  # what the reference implementation accepts


def read_header(path: Path) -> tuple[TensorInfo, ...]:
    """What the safetensors file `path` holds, in the order of the data.

    Raises UsageError for a Git LFS pointer and a truncated or malformed file, StageError for what
    cannot be read.
    """
    with disk_errors_told(path), path.open("rb") as stream:
        length = path.stat().st_size
        head = stream.read(len(LFS_MAGIC))
        if head == LFS_MAGIC:
            raise lfs_pointer(path)
        if length < 8:
            raise truncated(path, 8, length)
        count = int.from_bytes(head[:8], "little")
        if count > _HEADER_LIMIT:
            raise _malformed(path, f"its header claims {count} bytes")
        if length < 8 + count:
            raise truncated(path, 8 + count, length)
        stream.seek(8)
        raw = stream.read(count)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, "its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise _malformed(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    infos = [header_entry(path, 8 + count, name, entry) for name, entry in header.items()]
    infos.sort(key=lambda info: (info.offset, info.nbytes))
    end = 8 + count
    for info in infos:
        if info.offset != end:
            raise _malformed(path, f"tensor {info.name} starts at byte {info.offset}, not {end}")
        end += info.nbytes
    if length < end:
        raise truncated(path, end, length)
    if length > end:
        raise _malformed(path, f"it has {length - end} bytes after its last tensor")
    return tuple(infos)


def header_entry(path: Path, base: int, name: str, entry: object) -> TensorInfo:
    """The tensor `name` of `path`, by its `entry` in the header; `base` is where the data begin.

    Raises UsageError for an entry that describes no tensor.
    """
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if all(
            type(n) is int and n >= 0 for n in (*shape, begin, end)
        ):
            nbytes = end - begin
        case _:
            raise _malformed(path, f"its header does not describe tensor {name}")
    # A dtype of less than a byte, or one yet to come, passes here: it only fails where it is read.
    # Empty tensors are allowed, but not ones whose other dimensions no array can have.
    if (
        nbytes < 0
        or (dtype in ITEMSIZE and nbytes != prod(shape) * ITEMSIZE[dtype])
        or not is_array_shape(shape)
    ):
        raise _malformed(path, f"tensor {name} of {dtype} {shape} has {nbytes} bytes")
    return TensorInfo(
        name=name, shape=tuple(shape), dtype=dtype, file=path, offset=base + begin, nbytes=nbytes
    )


def _malformed(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is no valid safetensors file: {what}.", remedy=DOWNLOAD)
