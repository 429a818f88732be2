"""The weight files of an export: shards, and the tensor-cache.json that says where each tensor lies.

Packing and manifest are byte for byte those of TVM's `dump_tensor_cache` with its default limit.
`ndarray-cache.json` has the same content, for runtimes older than September 2025. TVM also writes a
`tensor-cache-b16.json` for float32 models, which calls the same bytes bfloat16; it is left out, since
no runtime opens it and a library compiled for float32 would refuse such parameters.
"""

import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

from engine.embedded.stored import StoredTensor
from engine.errors import StageError
from engine.layout import MANIFEST_NAME, OLD_MANIFEST_NAME

SHARD_LIMIT = 32 * 2**20
"""Bytes that a shard of several tensors stays below."""

MANIFESTS = (OLD_MANIFEST_NAME, MANIFEST_NAME)
_OBSOLETE = ("tensor-cache-b16.json",)
_WORKING = ".convert_weight"
_SHARD_NAME = re.compile(r"params_shard_\d+\.bin")
# float32 lies on disk as bfloat16.
_ITEMSIZE = {"uint32": 4, "float16": 2, "bfloat16": 2, "float32": 2}


@dataclass(frozen=True, kw_only=True)
class Record:
    """Where one tensor lies in its shard: `offset` and `nbytes` in bytes as stored."""

    tensor: StoredTensor
    offset: int
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of weights, `nbytes` long."""

    file: str
    records: tuple[Record, ...]
    nbytes: int


def stored_nbytes(tensor: StoredTensor) -> int:
    """The bytes of `tensor` on disk."""
    return prod(tensor.shape) * _ITEMSIZE[tensor.dtype]


def plan_shards(tensors: Iterable[StoredTensor], limit: int = SHARD_LIMIT) -> tuple[Shard, ...]:
    """How `tensors`, in the order in which they are written, are packed into shards.

    A tensor joins the open shard if that stays below `limit`. Where it does not fit, one of half the
    limit or more gets a shard of its own, numbered before the open one, which stays open; a smaller
    one closes the open shard and starts the next.
    """
    shards: list[Shard] = []
    pending: list[Record] = []
    filled = 0

    def close(records: list[Record], nbytes: int) -> None:
        shards.append(Shard(file=f"params_shard_{len(shards)}.bin", records=tuple(records), nbytes=nbytes))

    for tensor in tensors:
        nbytes = stored_nbytes(tensor)
        if filled + nbytes >= limit:
            if nbytes * 2 >= limit:
                close([Record(tensor=tensor, offset=0, nbytes=nbytes)], nbytes)
                continue
            close(pending, filled)
            pending, filled = [], 0
        pending.append(Record(tensor=tensor, offset=filled, nbytes=nbytes))
        filled += nbytes
    if filled:
        close(pending, filled)
    return tuple(shards)


class ShardWriter:
    """Writes planned shards into a working folder beside their place, and moves them there at the end.

    Tensors arrive in the planned order; each may arrive in pieces. Until `commit` the output folder
    keeps what it had. `commit` first takes the old manifests away and puts the new tensor-cache.json
    in place last, so that a manifest always names shards that are there and whole.

    Every method raises StageError where the disk is full or cannot be written.
    """

    def __init__(self, output: Path, shards: tuple[Shard, ...]) -> None:
        self.output = output
        self.shards = shards
        self.nbytes = sum(shard.nbytes for shard in shards)
        self._working = output / _WORKING
        self._place = {r.tensor.name: (shard, r) for shard in shards for r in shard.records}
        self._open: dict[str, tuple[FileIO, Any]] = {}
        self._written = dict.fromkeys((shard.file for shard in shards), 0)
        self._md5: dict[str, str] = {}

    def __enter__(self) -> "ShardWriter":
        with self._told():
            self.output.mkdir(parents=True, exist_ok=True)
            if self._working.exists():  # a run that was killed
                shutil.rmtree(self._working)
            self._working.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        for stream, _md5 in self._open.values():
            with contextlib.suppress(OSError):  # what it still buffers no longer matters
                stream.close()
        shutil.rmtree(self._working, ignore_errors=True)

    def append(self, name: str, data: memoryview) -> None:
        """The next bytes of tensor `name`; a shard is closed with its last byte."""
        shard, record = self._place[name]
        with self._told():
            if shard.file not in self._open:
                stream = (self._working / shard.file).open("wb", buffering=0)
                self._open[shard.file] = stream, hashlib.md5(usedforsecurity=False)
            stream, md5 = self._open[shard.file]
            done = self._written[shard.file]
            assert record.offset <= done <= record.offset + record.nbytes - data.nbytes
            md5.update(data)
            rest = data.cast("B")
            while rest:
                rest = rest[stream.write(rest) :]
            self._written[shard.file] = done = done + data.nbytes
            if done == shard.nbytes:
                stream.close()
                del self._open[shard.file]
                self._md5[shard.file] = md5.hexdigest()

    def commit(self, metadata: Mapping[str, Any]) -> None:
        """Put shards and manifests in place and remove what an earlier conversion left."""
        assert len(self._md5) == len(self.shards)
        manifest = {"metadata": dict(metadata), "records": [self._manifest_entry(s) for s in self.shards]}
        text = json.dumps(manifest, indent=4).encode()
        with self._told():
            for name in MANIFESTS:
                (self._working / name).write_bytes(text)
            for name in (*reversed(MANIFESTS), *_OBSOLETE):
                (self.output / name).unlink(missing_ok=True)
            for shard in self.shards:
                (self._working / shard.file).replace(self.output / shard.file)
            for path in list(self.output.iterdir()):
                if _SHARD_NAME.fullmatch(path.name) and path.name not in self._md5:
                    path.unlink()
            for name in MANIFESTS:
                (self._working / name).replace(self.output / name)

    def _manifest_entry(self, shard: Shard) -> dict[str, Any]:
        return {
            "dataPath": shard.file,
            "format": "raw-shard",
            "nbytes": shard.nbytes,
            "records": [
                {
                    "name": r.tensor.name,
                    "shape": list(r.tensor.shape),
                    "dtype": r.tensor.dtype,
                    # mlc_llm names the encoding of the whole dump; the dtype says whether it applies.
                    "format": "f32-to-bf16",
                    "nbytes": r.nbytes,
                    "byteOffset": r.offset,
                }
                for r in shard.records
            ],
            "md5sum": self._md5[shard.file],
        }

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
                raise StageError(
                    f"No space left for the weights in {self.output}: they need {self.nbytes:,} bytes "
                    f"({self.nbytes / 2**20:,.0f} MiB), and {sum(self._written.values()):,} were written.",
                    why="The weights of an earlier conversion stay until the new ones are whole.",
                    remedy="Free space on that disk, or choose another output folder.",
                ) from error
            raise StageError(
                f"The weights cannot be written to {self.output}: {error.strerror or error}.",
                remedy="Check that it is a folder you may write to and that no other program uses it.",
            ) from error
