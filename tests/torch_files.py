"""Files as torch.save writes them, put together opcode by opcode: no PyTorch, and any fault on purpose."""

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"}

Tensors = Mapping[str, np.ndarray[Any, Any]]


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key: str, kind: str, count: int) -> bytes:
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def view(
    data: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], more: bytes = b""
) -> bytes:
    arguments = data + number(offset) + numbers(*shape) + numbers(*strides)
    hooks = name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"\x89" + hooks + more + b"tR"


def state(values: Mapping[str, bytes]) -> bytes:
    """A pickle of a dict with these values, each given as opcodes."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


def archive(path: Path, pickled: bytes, data: Mapping[str, bytes] | None = None, **more: bytes) -> Path:
    """The ZIP archive of torch.save around a pickle and the bytes of its storages."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        out.writestr("archive/data.pkl", pickled)
        for key, value in (data or {}).items():
            out.writestr(f"archive/data/{key}", value)
        for key, value in more.items():
            out.writestr(f"archive/{key}", value)
    return path


def save(path: Path, tensors: Tensors, transposed: tuple[str, ...] = ()) -> Path:
    """`tensors` in one file; those named `transposed` lie in column-major order, as views of a .t()."""
    values, data = {}, {}
    for key, (tensor, value) in enumerate(tensors.items()):
        lies = value.T if tensor in transposed else value
        steps = [stride // value.itemsize for stride in np.ascontiguousarray(lies).strides]
        strides = tuple(reversed(steps)) if tensor in transposed else tuple(steps)
        data[str(key)] = np.ascontiguousarray(lies).tobytes()
        run = storage(str(key), STORAGES[value.dtype.name], value.size)
        values[tensor] = view(run, 0, value.shape, strides)
    return archive(path, state(values), data, byteorder=b"little")


def save_sharded(folder: Path, *shards: Tensors) -> None:
    """`shards` under the names that transformers gives them, with their index."""
    weight_map = {}
    for number_, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number_:05}-of-{len(shards):05}.bin"
        save(folder / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
