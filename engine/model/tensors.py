"""Source tensors by name, read from disk a block of rows at a time.

A folder holds its weights as safetensors or as PyTorch files, in one file or in several with an
index (names to files). Nothing is mapped into memory: a mapped file counts as resident memory for as
long as it is open, and one that shrinks while mapped kills the process.
"""

from collections.abc import Container, Mapping
from math import prod
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from engine import paths
from engine.errors import UsageError
from engine.model import safetensors_file, torch_file
from engine.model.files import DOWNLOAD, disk_errors_told, read_json_object, some, truncated
from engine.model.tensor_info import TensorInfo

if TYPE_CHECKING:
    # Imported for real where tensors are read: a front end shows its first screen without waiting for it.
    import numpy as np
    from numpy.typing import NDArray

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
TORCH_INDEX_FILE = "pytorch_model.bin.index.json"
TORCH_SINGLE_FILE = "pytorch_model.bin"

SourceFormat = Literal["auto", "huggingface-safetensor", "huggingface-torch"]
"""The formats by the names that mlc_llm's command line gives them."""

_FILES: dict[SourceFormat, tuple[str, ...]] = {
    # In the order of transformers: an index beside a single file is what an earlier saving left.
    "huggingface-safetensor": (SINGLE_FILE, INDEX_FILE),
    "huggingface-torch": (TORCH_SINGLE_FILE, TORCH_INDEX_FILE),
    # Many repositories hold both; safetensors are the ones that nobody has to fear.
    "auto": (SINGLE_FILE, INDEX_FILE, TORCH_SINGLE_FILE, TORCH_INDEX_FILE),
}
_CHUNK = 2**22  # bytes read at a time of a tensor whose elements do not lie one after the other


def weights_file(present: Container[str], source_format: SourceFormat = "auto") -> str | None:
    """Which of the file names `present` in a folder says what weights it holds; None where none does."""
    return next((name for name in _FILES[source_format] if name in present), None)


class TensorSource:
    """The tensors of one model, read by name. Safe to share between threads.

    `names` are in the order in which the source lists them: that of the index's `weight_map`, or of
    a single file. `files` maps each file to everything it holds, indexed or not.
    """

    def __init__(self, infos: Mapping[str, TensorInfo], files: Mapping[Path, tuple[TensorInfo, ...]]) -> None:
        self._infos = dict(infos)
        self.files = dict(files)
        self._scattered: tuple[str, NDArray[Any]] | None = None
        self._gathering = Lock()

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
        info = self._infos[name]
        dtype, shape, strides = info.numpy_dtype, info.shape, info.strides
        start, stop = 0, shape[0] if shape else 1
        if rows is not None:
            start, stop, step = rows.indices(shape[0])
            assert step == 1
            shape = (max(stop - start, 0), *shape[1:])
        if strides is None:
            offset = info.offset + start * prod(shape[1:]) * dtype.itemsize
            return _read(info.file, offset, prod(shape), dtype).reshape(shape)
        if strides[0] == max(strides):
            return _gather(
                info.file, info.offset + start * strides[0] * dtype.itemsize, shape, strides, dtype
            )
        # Its rows lie across the whole tensor, as those of a transposed matrix do: reading it once takes
        # its own size of memory, reading it for each block would take hours.
        with self._gathering:
            if self._scattered is None or self._scattered[0] != name:
                self._scattered = None
                self._scattered = name, _gather(info.file, info.offset, info.shape, strides, dtype)
            return self._scattered[1][start:stop].copy()


def _read(file: Path, offset: int, count: int, dtype: "np.dtype[Any]") -> "NDArray[Any]":
    """`count` elements that lie at `offset` bytes into `file`."""
    import numpy as np

    out = np.empty(count, dtype)
    buffer = out.view(np.uint8).data
    with disk_errors_told(file), file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        done = 0
        while done < len(buffer):
            got = stream.readinto(buffer[done:])
            if not got:
                raise truncated(file, offset + len(buffer), offset + done)
            done += got
    return out


def _gather(
    file: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: "np.dtype[Any]"
) -> "NDArray[Any]":
    """A tensor of any strides as a contiguous array; memory beyond its own size is a chunk at most.

    The axis of the largest stride is outermost, so that chunks along it follow each other on disk.
    """
    import numpy as np
    from numpy.lib.stride_tricks import as_strided

    out = np.empty(shape, dtype)
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    target = out.transpose(order)
    steps = tuple(strides[axis] for axis in order)
    rows = max(_CHUNK // max(steps[0] * dtype.itemsize, 1), 1)
    for start in range(0, target.shape[0], rows):
        part = target[start : start + rows]
        if part.size:
            reach = sum((n - 1) * step for n, step in zip(part.shape, steps, strict=True)) + 1
            data = _read(file, offset + start * steps[0] * dtype.itemsize, reach, dtype)
            part[...] = as_strided(data, part.shape, [step * dtype.itemsize for step in steps])
    return out


def open_tensors(source: Path, source_format: SourceFormat = "auto") -> TensorSource:
    """The tensors of the model folder `source`, or of one weight file or index.

    Every header is checked against its file's length before this returns.
    Raises UsageError naming the file for: no folder, no weights or weights in another format, a Git
    LFS pointer, a truncated or malformed file, a PyTorch file with anything but tensors, an index that
    does not fit its files. Raises StageError for what cannot be read.
    """
    with disk_errors_told(source):
        if source.is_file():
            return _open(source)
        if not source.is_dir():
            raise UsageError(
                f"There is no folder {source}.",
                remedy="Name a folder with config.json and model.safetensors.",
            )
        present = sorted(path.name for path in source.iterdir() if path.is_file())
        if name := weights_file(present, source_format):
            return _open(source / name)
        raise _no_weights(source, present)


def _open(path: Path) -> TensorSource:
    if path.suffix == ".json":
        return _open_index(path)
    infos = _read_header(path)
    return TensorSource({info.name: info for info in infos}, {path: infos})


def _read_header(path: Path) -> tuple[TensorInfo, ...]:
    if path.suffix == ".safetensors":
        return safetensors_file.read_header(path)
    return torch_file.read_header(path)


def _open_index(index: Path) -> TensorSource:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise UsageError(
            f"{index} has no weight_map of tensor names to file names.",
            remedy=DOWNLOAD,
        )
    names = dict.fromkeys(weight_map.values())
    for name in names:
        # A model must not make this program read elsewhere; a backslash separates on Windows only.
        if PurePosixPath(name).is_absolute() or ".." in name or "\\" in name or ":" in name:
            raise UsageError(f"{index} names the file {name!r}, outside its folder.", remedy=DOWNLOAD)
    missing = [name for name in names if not paths.is_file(index.parent / name)]
    if missing:
        raise UsageError(
            f"{index.name} names {len(names)} weight files, of which {len(missing)} are not in "
            f"{index.parent}: {some(missing)}.",
            why="The download stopped early, or files were moved.",
            remedy=DOWNLOAD,
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
                remedy=DOWNLOAD,
            )
        infos[tensor] = info
    return TensorSource(infos, files)


def _no_weights(folder: Path, present: list[str]) -> UsageError:
    """Why `folder` has nothing to convert, by what it has instead."""
    if other := weights_file(present):
        return UsageError(
            f"{folder} has its weights as {other}, which is not of the format that --source-format names.",
            remedy="Leave --source-format out: what is there will be found.",
        )
    if any(name.startswith("adapter_") for name in present):
        return UsageError(
            f"{folder} holds a LoRA adapter, not a model.",
            remedy="Name the model that it was trained on as model.source, and this folder as "
            "model.lora_adapter (--lora-adapter of convert_weight): it is merged into the model.",
        )
    for suffix, (single, index) in (
        (".safetensors", _FILES["huggingface-safetensor"]),
        (".bin", _FILES["huggingface-torch"]),
    ):
        if others := [name for name in present if name.endswith(suffix)]:
            return UsageError(
                f"{folder} has {some(others)}, but neither {single} nor {index}.",
                why="Without an index, which file holds which tensor is not known.",
                remedy=DOWNLOAD,
            )
    if others := [name for name in present if name.endswith(".gguf")]:
        return UsageError(
            f"{folder} has its weights as {some(others)}, which is quantized for another runtime.",
            remedy="Start from the model's original checkpoint in safetensors.",
        )
    return UsageError(
        f"{folder} holds no weights: neither {SINGLE_FILE} nor {INDEX_FILE}.",
        remedy=DOWNLOAD,
    )
