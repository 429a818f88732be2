"""Source tensors by name, read from disk a block of rows at a time.

A folder holds either `model.safetensors.index.json` (names to files) or one `model.safetensors`.
Nothing is mapped into memory: a mapped file counts as resident memory for as long as it is open,
and one that shrinks while mapped kills the process.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from engine.errors import StageError, UsageError

if TYPE_CHECKING:
    # Imported for real where tensors are read: a front end shows its first screen without waiting for it.
    import numpy as np
    from numpy.typing import NDArray

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

# https://github.com/huggingface/safetensors#format; sizes of every dtype that fills whole bytes.
_ITEMSIZE = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_HEADER_LIMIT = 100_000_000  # what the reference implementation accepts
_LFS_MAGIC = b"version https://git-lfs"
_DOWNLOAD = "Download the model again, for example with `hf download`."


@cache
def _readable() -> "dict[str, np.dtype[Any]]":
    """The dtypes that weights are read as."""
    import ml_dtypes
    import numpy as np

    return {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies: `dtype` as safetensors spells it ("BF16"), `offset` in bytes into `file`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    offset: int
    nbytes: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def numpy_dtype(self) -> "np.dtype[Any]":
        """bfloat16, float16 or float32; UsageError for any other dtype."""
        if dtype := _readable().get(self.dtype):
            return dtype
        raise UsageError(
            f"Tensor {self.name} in {self.file.name} has dtype {self.dtype}.",
            why=f"Weights are read as {', '.join(_readable())}; other dtypes are those of checkpoints that "
            "are quantized already.",
            remedy="Start from the model's original checkpoint in BF16, F16 or F32.",
        )


class TensorSource:
    """The tensors of one model, read by name. Safe to share between threads.

    `names` are in the order in which the source lists them: that of the index's `weight_map`, or of
    the data in a single file. `files` maps each file to everything it holds, indexed or not.
    """

    def __init__(self, infos: Mapping[str, TensorInfo], files: Mapping[Path, tuple[TensorInfo, ...]]) -> None:
        self._infos = dict(infos)
        self.files = dict(files)

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor, in source order."""
        return tuple(self._infos)

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def info(self, name: str) -> TensorInfo:
        """Where `name` lies and what it is; KeyError for a name that is not in `names`."""
        return self._infos[name]

    def read(self, name: str, rows: slice | None = None) -> "NDArray[Any]":
        """The tensor, or its `rows` along the first axis (of step 1), as bfloat16, float16 or float32.

        Raises UsageError for a dtype that is no 16 or 32 bit float and for a file that has become
        shorter, StageError where the disk fails.
        """
        import numpy as np

        info = self._infos[name]
        dtype = info.numpy_dtype
        shape, offset = info.shape, info.offset
        if rows is not None:
            start, stop, step = rows.indices(shape[0])
            assert step == 1
            shape = (max(stop - start, 0), *shape[1:])
            offset += start * prod(shape[1:]) * dtype.itemsize
        out = np.empty(prod(shape), dtype)
        buffer = out.view(np.uint8).data
        with disk_errors_told(info.file), info.file.open("rb", buffering=0) as stream:
            stream.seek(offset)
            done = 0
            while done < len(buffer):
                count = stream.readinto(buffer[done:])
                if not count:
                    raise _truncated(info.file, offset + len(buffer), offset + done)
                done += count
        return out.reshape(shape)


def open_tensors(source: Path) -> TensorSource:
    """The tensors of the model folder `source`, or of one .safetensors file or index.

    Every header is checked against its file's length before this returns.
    Raises UsageError naming the file for: no folder, no weights or weights in another format, a Git
    LFS pointer, a truncated or malformed file, an index that does not fit its files. Raises StageError
    for what cannot be read.
    """
    with disk_errors_told(source):
        if source.is_file():
            return _open_index(source) if source.suffix == ".json" else _open_single(source)
        if not source.is_dir():
            raise UsageError(
                f"There is no folder {source}.",
                remedy="Name a folder with config.json and model.safetensors.",
            )
        if (source / INDEX_FILE).is_file():
            return _open_index(source / INDEX_FILE)
        if (source / SINGLE_FILE).is_file():
            return _open_single(source / SINGLE_FILE)
        raise _no_weights(source)


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Raise StageError naming `path` for any OSError within: not allowed, a bad disk, too long a name."""
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; UsageError naming the file and the place where it is something else."""
    with disk_errors_told(path):
        data = path.read_bytes()
    if data.startswith(_LFS_MAGIC):
        raise _lfs_pointer(path)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}", remedy=_DOWNLOAD) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object.", remedy=_DOWNLOAD)
    return found


def _open_single(path: Path) -> TensorSource:
    infos = _read_header(path)
    return TensorSource({info.name: info for info in infos}, {path: infos})


def _open_index(index: Path) -> TensorSource:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise UsageError(
            f"{index} has no weight_map of tensor names to file names.",
            remedy=_DOWNLOAD,
        )
    names = dict.fromkeys(weight_map.values())
    for name in names:
        # A model must not make this program read elsewhere; a backslash separates on Windows only.
        if PurePosixPath(name).is_absolute() or ".." in name or "\\" in name or ":" in name:
            raise UsageError(f"{index} names the file {name!r}, outside its folder.", remedy=_DOWNLOAD)
    missing = [name for name in names if not _is_file(index.parent / name)]
    if missing:
        raise UsageError(
            f"{index.name} names {len(names)} weight files, of which {len(missing)} are not in "
            f"{index.parent}: {_some(missing)}.",
            why="The download stopped early, or files were moved.",
            remedy=_DOWNLOAD,
        )
    files = {index.parent / name: _read_header(index.parent / name) for name in names}
    by_name = {(path, info.name): info for path, infos in files.items() for info in infos}
    infos = {}
    for tensor, file in weight_map.items():
        info = by_name.get((index.parent / file, tensor))
        if info is None:
            raise UsageError(
                f"{index.name} says tensor {tensor} is in {file}, which does not hold it.",
                why="Index and weight files come from different versions of the model.",
                remedy=_DOWNLOAD,
            )
        infos[tensor] = info
    return TensorSource(infos, files)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name no file can have: too long, or with a null character
        return False


def _read_header(path: Path) -> tuple[TensorInfo, ...]:
    """What the safetensors file `path` holds, in the order of the data."""
    with disk_errors_told(path), path.open("rb") as stream:
        length = path.stat().st_size
        head = stream.read(len(_LFS_MAGIC))
        if head == _LFS_MAGIC:
            raise _lfs_pointer(path)
        if length < 8:
            raise _truncated(path, 8, length)
        count = int.from_bytes(head[:8], "little")
        if count > _HEADER_LIMIT:
            raise _malformed(path, f"its header claims {count} bytes")
        if length < 8 + count:
            raise _truncated(path, 8 + count, length)
        stream.seek(8)
        raw = stream.read(count)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, "its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise _malformed(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    infos = [_entry(path, 8 + count, name, entry) for name, entry in header.items()]
    infos.sort(key=lambda info: (info.offset, info.nbytes))
    end = 8 + count
    for info in infos:
        if info.offset != end:
            raise _malformed(path, f"tensor {info.name} starts at byte {info.offset}, not {end}")
        end += info.nbytes
    if length < end:
        raise _truncated(path, end, length)
    if length > end:
        raise _malformed(path, f"it has {length - end} bytes after its last tensor")
    return tuple(infos)


def _entry(path: Path, base: int, name: str, entry: object) -> TensorInfo:
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
        or (dtype in _ITEMSIZE and nbytes != prod(shape) * _ITEMSIZE[dtype])
        or prod(n or 1 for n in shape) >= 2**60
        or len(shape) > 32
    ):
        raise _malformed(path, f"tensor {name} of {dtype} {shape} has {nbytes} bytes")
    return TensorInfo(
        name=name, shape=tuple(shape), dtype=dtype, file=path, offset=base + begin, nbytes=nbytes
    )


def _some(names: list[str], limit: int = 3) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _truncated(path: Path, expected: int, found: int) -> UsageError:
    return UsageError(
        f"{path} is truncated: {expected} bytes expected, {found} found.",
        why="The download or the copy of this file did not finish.",
        remedy=_DOWNLOAD,
    )


def _malformed(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is no valid safetensors file: {what}.", remedy=_DOWNLOAD)


def _unreadable(path: Path, error: OSError) -> StageError:
    return StageError(
        f"{path} cannot be read: {error.strerror or error}.",
        remedy="Check that the file is there, that you may read it and that its disk is healthy.",
    )


def _lfs_pointer(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a Git LFS pointer, not the file itself.",
        why="The repository was cloned without Git LFS.",
        remedy="Run `git lfs pull` in that folder, or fetch the model with `hf download`.",
    )


def _no_weights(folder: Path) -> UsageError:
    """Why `folder` has nothing to convert, by what it has instead."""
    present = sorted(path.name for path in folder.iterdir() if path.is_file())
    found = {
        suffix: [n for n in present if n.endswith(suffix)] for suffix in (".safetensors", ".bin", ".gguf")
    }
    if any(name.startswith("adapter_") for name in present):
        return UsageError(
            f"{folder} holds a LoRA adapter, not a model.",
            remedy="Merge the adapter into its base model (PEFT: `merge_and_unload()`, then "
            "`save_pretrained`) and name that folder.",
        )
    if others := found[".safetensors"]:
        return UsageError(
            f"{folder} has {_some(others)}, but neither {SINGLE_FILE} nor {INDEX_FILE}.",
            why="Without an index, which file holds which tensor is not known.",
            remedy=_DOWNLOAD,
        )
    if others := found[".bin"]:
        return UsageError(
            f"{folder} has its weights as {_some(others)}, which is not supported yet.",
            why="Such files are Python pickles.",
            remedy="Load it with transformers and save it again with "
            "`save_pretrained(folder, safe_serialization=True)`.",
        )
    if others := found[".gguf"]:
        return UsageError(
            f"{folder} has its weights as {_some(others)}, which is quantized for another runtime.",
            remedy="Start from the model's original checkpoint in safetensors.",
        )
    return UsageError(
        f"{folder} holds no weights: neither {SINGLE_FILE} nor {INDEX_FILE}.",
        remedy=_DOWNLOAD,
    )
