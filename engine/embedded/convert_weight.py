"""The convert_weight stage: a Hugging Face checkpoint to the shards of an export.

Source tensors are read, cast, quantized, hashed and written a block of rows at a time, so that
memory does not grow with the model. Blocks are computed on all cores and written in order.
"""

import argparse
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import narrate
from engine.catalog import QUANTIZATIONS, ModelDtype, Quantization, quantization_named
from engine.embedded import quantize
from engine.embedded.source import Checkpoint, open_checkpoint
from engine.embedded.spec import Parameter
from engine.embedded.stored import layout, stored_tensors
from engine.embedded.weights import Shard, ShardWriter, plan_shards
from engine.errors import UsageError
from engine.model.tensors import SourceFormat
from engine.units import megabytes

# Elements a block has, at least a row: its intermediate values (float32) stay within a core's cache.
_BLOCK = 2**18

ProgressCallback = Callable[[int, int | None, str, str], None]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written."""

    shards: tuple[Shard, ...]
    metadata: dict[str, int | float]

    @property
    def nbytes(self) -> int:
        """The bytes of all shards."""
        return sum(shard.nbytes for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One block of rows of a stored parameter: the rows of each of its one or two stored tensors."""

    rows: int
    arrays: tuple[NDArray[Any], ...]


def convert(
    config: Path,
    quantization: str,
    output: Path,
    *,
    source: Path | None = None,
    model_type: str = "auto",
    source_format: SourceFormat = "auto",
    lora_adapter: Path | None = None,
    progress: ProgressCallback = narrate.progress,
) -> Conversion:
    """Write the weights of the model that `config` (folder or config.json) describes into `output`.

    `source` is where the weights are, the config's folder by default; the PEFT adapter in the folder
    `lora_adapter` is merged into them. Nothing is written before every header, name, shape and dtype was
    checked, and `output` changes only when all is done.

    Raises UsageError for a model that cannot be converted, also for weights that are NaN or infinite or would
    be as they are stored: nothing computed with them is right, and the export could only fail later.
    StageError where the disk is full or fails.
    """
    how = quantization_named(quantization)
    checkpoint = open_checkpoint(
        config,
        source,
        model_type,
        quantization=how,
        source_format=source_format,
        lora_adapter=lora_adapter,
    )
    stored = [tensor for p in checkpoint.parameters for tensor in stored_tensors(p, how)]
    # As mlc_llm counts: bytes as the device holds them (float32 in four), over the parameters it read.
    held = float(sum(prod(t.shape) * np.dtype(t.dtype).itemsize for t in stored))
    metadata: dict[str, int | float] = {
        "ParamSize": len(stored),
        "ParamBytes": held,
        "BitsPerParam": held * 8.0 / checkpoint.parameters_read,
    }
    shards = plan_shards(stored)
    with ShardWriter(output, shards) as writer:
        _write(checkpoint, how, writer, progress)
        writer.commit(metadata)
    return Conversion(shards=shards, metadata=metadata)


def _write(
    checkpoint: Checkpoint,
    how: Quantization,
    writer: ShardWriter,
    progress: ProgressCallback,
) -> None:
    written, count = 0, len(checkpoint.parameters)
    workers = min(os.cpu_count() or 1, 8)
    with ThreadPoolExecutor(workers, thread_name_prefix="convert") as pool:
        try:
            blocks = _in_order(pool, _jobs(checkpoint, how), ahead=3 * workers)
            for number, parameter in enumerate(checkpoint.parameters, 1):
                tensors = stored_tensors(parameter, how)
                transposed = layout(parameter, how) == "KN"
                whole = [np.empty(t.shape, quantize.dtype_on_disk(t.dtype)) for t in tensors if transposed]
                later: list[memoryview] = []
                rows = 0
                while rows < parameter.shape[0]:
                    block = next(blocks)
                    if transposed:
                        # A block is columns of what is stored, so the first bytes need the last block.
                        for array, part in zip(whole, block.arrays, strict=True):
                            array[:, rows : rows + block.rows] = part
                    else:
                        writer.append(tensors[0].name, _bytes(block.arrays[0]))
                        # Scales follow all words of their matrix; they are an eighth of its size at most.
                        later += [_bytes(array) for array in block.arrays[1:]]
                    rows += block.rows
                    written += sum(array.nbytes for array in block.arrays)
                    progress(written, writer.nbytes, "bytes", f"tensor {number}/{count} {parameter.name}")
                for tensor, array in zip(tensors, whole, strict=False):
                    writer.append(tensor.name, _bytes(array))
                for piece in later:
                    writer.append(tensors[1].name, piece)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], _Block]], ahead: int) -> Iterator[_Block]:
    """The results of `jobs` in their order, computed by `pool`, at most `ahead` of them at a time."""
    running: deque[Future[_Block]] = deque()
    for job in jobs:
        running.append(pool.submit(job))
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _jobs(checkpoint: Checkpoint, how: Quantization) -> Iterator[Callable[[], _Block]]:
    """One job a block, in the order in which blocks are written.

    Joining along axis 0 is nothing but order: no block and no group reaches over two source tensors.
    A block of a parameter that is joined along axis 1 has the same rows of each of them.
    """
    for parameter in checkpoint.parameters:
        beside = [parameter.sources] if parameter.axis else [(name,) for name in parameter.sources]
        for names in beside:
            shape = checkpoint.tensors.info(names[0]).shape
            step = max(_BLOCK // prod(shape[1:]), 1)
            for start in range(0, shape[0], step):
                rows = slice(start, min(start + step, shape[0]))
                yield partial(_block, checkpoint, how, parameter, names, rows)


def _block(
    checkpoint: Checkpoint, how: Quantization, parameter: Parameter, names: tuple[str, ...], rows: slice
) -> _Block:
    parts = [checkpoint.tensors.read(name, rows) for name in names]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    name = ", ".join(names)
    if parameter.kind == "integers":
        return _Block(rows=len(values), arrays=(values.view("<u4"),))
    magnitude = quantize.largest_magnitude(values)
    if not np.isfinite(magnitude):
        bad = int(np.count_nonzero(~np.isfinite(values.astype(np.float32))))
        raise UsageError(
            f"Tensor {name} has {bad} NaN or infinite values in rows {rows.start} to {rows.stop - 1}.",
            why="Nothing computed with them is right: training diverged, or the file is damaged.",
            remedy="Download the model again, or choose another checkpoint of it.",
        )
    if parameter.plus_one:
        values = quantize.add_one(values)
    dtype = parameter.dtype or how.model_dtype
    if magnitude + parameter.plus_one >= quantize.OVERFLOW[dtype]:
        _check_range(name, values, dtype)
    place = layout(parameter, how)
    arrays = quantize.quantize(values, how, place) if place else (quantize.stored(values, dtype),)
    return _Block(rows=len(values), arrays=arrays)


def _check_range(name: str, values: NDArray[Any], dtype: ModelDtype) -> None:
    """Raise UsageError for finite values that `dtype` rounds to infinity."""
    limit = quantize.OVERFLOW[dtype]
    magnitudes = np.abs(values.astype(np.float32))
    if beyond := int(np.count_nonzero(magnitudes >= limit)):
        raise UsageError(
            f"Tensor {name} has {beyond} values beyond the range of {dtype}: up to {magnitudes.max():.4g}.",
            why="Stored in it they would be infinite, and all that is computed with them nonsense.",
            remedy="Choose a quantization in float32, q0f32 or q4f32_1.",
        )


def _bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `mlc_llm convert_weight`."""
    parser.add_argument("config", type=Path, help="the model's folder, or its config.json")
    parser.add_argument("--quantization", required=True, help=", ".join(QUANTIZATIONS))
    parser.add_argument("--model-type", default="auto", help="the family, by default that of config.json")
    parser.add_argument("--device", default="auto", help="auto or cpu: weights are converted on the CPU")
    parser.add_argument(
        "--source", default="auto", help="where the weights are, by default beside config.json"
    )
    parser.add_argument(
        "--source-format",
        default="auto",
        choices=("auto", "huggingface-torch", "huggingface-safetensor", "awq"),
        help="safetensors or PyTorch files; auto takes safetensors where both are there",
    )
    parser.add_argument("--output", "-o", type=Path, required=True, help="the folder of the export")
    parser.add_argument(
        "--lora-adapter", type=Path, help="folder of a PEFT LoRA adapter that is merged into the weights"
    )


def run(arguments: argparse.Namespace) -> None:
    """Convert as the command line says, and narrate what came out."""
    if arguments.device.partition(":")[0] not in ("auto", "cpu"):
        raise UsageError(
            f"--device {arguments.device} is not supported: weights are converted on the CPU.",
            remedy="Leave --device out; the weights are the same for every device.",
        )
    how = quantization_named(arguments.quantization)
    if arguments.source_format == "awq" and not how.from_awq:
        raise UsageError(
            f"--source-format awq goes with --quantization q4f16_autoawq, not with {how.name}.",
            remedy="Leave --source-format out: what the weights are is read from config.json.",
        )
    started = time.monotonic()
    done = convert(
        arguments.config,
        arguments.quantization,
        arguments.output,
        source=None if arguments.source == "auto" else Path(arguments.source),
        model_type=arguments.model_type,
        # AWQ checkpoints are told by their config.json; their files are like any other.
        source_format="auto" if arguments.source_format == "awq" else arguments.source_format,
        lora_adapter=arguments.lora_adapter,
    )
    shards = "1 shard" if len(done.shards) == 1 else f"{len(done.shards)} shards"
    narrate.say(
        f"Wrote {done.metadata['ParamSize']} tensors, {megabytes(done.nbytes)} in {shards}, "
        f"{done.metadata['BitsPerParam']:.2f} bits per parameter, "
        f"in {time.monotonic() - started:.1f} s."
    )
