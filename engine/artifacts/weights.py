"""tensor-cache.json and the shards it names, against each other and against the model's decoder."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from engine import narrate, paths
from engine.artifacts.report import Report
from engine.catalog import QUANTIZATIONS
from engine.embedded.families.registry import FAMILIES
from engine.embedded.stored import all_stored_tensors
from engine.errors import WizardError
from engine.layout import MANIFEST_NAME, OLD_MANIFEST_NAME

_ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2, "uint32": 4, "int32": 4, "int8": 1, "uint8": 1}
# The bits of the exponent: all set is infinity or NaN. By the form on disk.
_EXPONENT = {"float16": ("<u2", 0x7C00), "bfloat16": ("<u2", 0x7F80), "float32": ("<u4", 0x7F800000)}
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A record of a shard. `dtype` is what the runtime makes of it, `stored` its form on disk."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    nbytes: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of weights and the tensors in it."""

    name: str
    nbytes: int
    md5: str
    tensors: tuple[Tensor, ...]


def verify(
    output: Path, config: Mapping[str, Any] | None, report: Report, *, foreign: bool = False
) -> tuple[Shard, ...] | None:
    """Check the weights; the shards of the manifest, or None where it is unusable.

    `foreign`: made by another compiler, so that a model type need not be known here.
    """
    shards = None
    with report.guarding("manifest"):
        text = (output / MANIFEST_NAME).read_text(encoding="utf-8")
        shards = tuple(_shards(json.loads(text)))
        names = [t.name for s in shards for t in s.tensors]
        problems = [f"{name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
        old = output / OLD_MANIFEST_NAME
        if old.is_file() and json.loads(old.read_text(encoding="utf-8")) != json.loads(text):
            problems.append(f"{OLD_MANIFEST_NAME} says something else")
        report.add("manifest", problems, f"{len(names)} tensors in {len(shards)} shards")
    if shards is None:
        return None
    report.add("tensor offsets", list(_misplaced(shards)), "every tensor within its shard, none overlaps")
    whole = _sizes(output, shards, report)
    with report.guarding("shard contents"):
        _contents(output, whole, report)
    if config is not None:
        with report.guarding("parameters"):
            _parameters(config, shards, report, foreign=foreign)
    return shards


def _shards(document: Mapping[str, Any]) -> Iterator[Shard]:
    for entry in document["records"]:
        name = entry["dataPath"]
        if Path(name).name != name:
            raise ValueError(f"dataPath {name!r} is no plain file name")
        yield Shard(
            name=name,
            nbytes=int(entry["nbytes"]),
            md5=str(entry.get("md5sum", "")),
            tensors=tuple(_tensor(record) for record in entry["records"]),
        )


def _tensor(record: Mapping[str, Any]) -> Tensor:
    dtype = record["dtype"]
    packed = dtype == "float32" and record["format"] == "f32-to-bf16"
    return Tensor(
        name=record["name"],
        shape=tuple(int(size) for size in record["shape"]),
        dtype=dtype,
        stored="bfloat16" if packed else dtype,
        nbytes=int(record["nbytes"]),
        offset=int(record["byteOffset"]),
    )


def _misplaced(shards: tuple[Shard, ...]) -> Iterator[str]:
    for shard in shards:
        end = 0
        for tensor in sorted(shard.tensors, key=lambda t: t.offset):
            size = prod(tensor.shape) * _ITEMSIZE.get(tensor.stored, 0)
            if size != tensor.nbytes:
                what = f"{tensor.name} {list(tensor.shape)} {tensor.dtype}"
                yield f"{what} takes {size} bytes, not {tensor.nbytes}"
            if tensor.offset < end:
                yield f"{tensor.name} overlaps the tensor before it"
            end = tensor.offset + tensor.nbytes
            if tensor.offset < 0 or end > shard.nbytes:
                yield f"{tensor.name} ends at byte {end} of {shard.nbytes} in {shard.name}"


def _sizes(output: Path, shards: tuple[Shard, ...], report: Report) -> list[Shard]:
    """The shards that are there and have the right size."""
    problems, whole = [], []
    for shard in shards:
        path = output / shard.name
        size = path.stat().st_size if paths.is_file(path) else None
        if size == shard.nbytes:
            whole.append(shard)
        elif size is None:
            problems.append(f"{shard.name} is missing")
        else:
            problems.append(f"{shard.name} has {size} bytes, not {shard.nbytes}")
    report.add("shard files", problems, f"{sum(s.nbytes for s in shards):,} bytes")
    return whole


def _contents(output: Path, shards: list[Shard], report: Report) -> None:
    """MD5 of each shard, and that every float in it is a number; each is read once."""
    wrong, unsummed, infinite = [], 0, []
    total, done = sum(s.nbytes for s in shards), 0
    for shard in shards:
        data = np.memmap(output / shard.name, np.uint8, mode="r") if shard.nbytes else np.empty(0, np.uint8)
        digest = hashlib.md5(usedforsecurity=False)
        for start in range(0, len(data), _BLOCK):
            digest.update(data[start : start + _BLOCK].data)
            narrate.progress(done + start, total, "bytes", shard.name)
        done += shard.nbytes
        unsummed += not shard.md5
        if shard.md5 and digest.hexdigest() != shard.md5:
            wrong.append(f"{shard.name} has the MD5 {digest.hexdigest()}, not {shard.md5}")
        infinite += [tensor.name for tensor in shard.tensors if _has_infinity(data, tensor)]
    narrate.progress(total, total, "bytes")
    if unsummed:
        wrong.append(f"{unsummed} shards have no md5sum")
    report.add("shard contents", wrong, f"md5 of {len(shards)} shards")
    report.add("finite weights", [f"{name} holds NaN or infinity" for name in infinite], "every float")


def _has_infinity(data: "np.ndarray[Any, np.dtype[np.uint8]]", tensor: Tensor) -> bool:
    if tensor.stored not in _EXPONENT:
        return False
    kind, mask = _EXPONENT[tensor.stored]
    step = _BLOCK * np.dtype(kind).itemsize
    end = min(tensor.offset + tensor.nbytes, len(data))
    for start in range(max(tensor.offset, 0), end, step):
        block = data[start : min(start + step, end)]
        bits = block[: len(block) // np.dtype(kind).itemsize * np.dtype(kind).itemsize].copy().view(kind)
        if bool(np.any((bits & mask) == mask)):
            return True
    return False


def _parameters(
    config: Mapping[str, Any], shards: tuple[Shard, ...], report: Report, *, foreign: bool
) -> None:
    """Names, shapes and dtypes of what is stored, against what the compiled functions will take."""
    family, quantization = FAMILIES.get(config["model_type"]), QUANTIZATIONS.get(config["quantization"])
    if family is None or quantization is None:
        problem = f"nothing is known of {config['model_type']} in {config['quantization']}"
        if foreign:
            narrate.say(f"parameters: not compared with the model: {problem}")
        else:
            report.add("parameters", [problem], "")
        return
    try:
        spec = family.spec(config["model_config"])
    except WizardError as error:
        report.add("parameters", [error.what], "")
        return
    expected = {t.name: t for t in all_stored_tensors(family.parameters(spec), quantization)}
    found = {t.name: t for s in shards for t in s.tensors}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} belongs to no parameter" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        is_, wanted = found[name], expected[name]
        if is_.shape != wanted.shape:
            problems.append(f"{name} is {list(is_.shape)}, not {list(wanted.shape)}")
        elif is_.dtype != wanted.dtype:
            problems.append(f"{name} is {is_.dtype}, not {wanted.dtype}")
    if spec.vocab_size != config["vocab_size"]:
        problems.append(f"{spec.vocab_size} rows of embeddings for vocab_size = {config['vocab_size']}")
    report.add("parameters", sorted(problems), f"{len(found)} tensors, as the decoder takes them")
