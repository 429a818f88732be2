"""A model library for the CPU, run in this process on the weights of its export.

model = LocalModel(folder, folder / "model-cpu.so")
model.step([2, 17, 5])     # logits after these tokens, float32 [vocab]
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from engine.errors import StageError
from engine.layout import MANIFEST_NAME

PAGE_SIZE = 16
_SEQUENCE = 0
_BLOCK = 1 << 18


class LocalModel:
    """One conversation with an exported model; `step` appends to it, `reset` starts anew.

    `weights` (stored tensors by name) takes the place of those in `folder`.

    Raises StageError where library and weights do not belong together.
    """

    def __init__(
        self, folder: Path, library: Path, weights: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> None:
        self._vm = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        metadata = json.loads(str(self._vm["_metadata"]()))
        self._context = int(metadata["context_window_size"])
        self._rolling = int(metadata["sliding_window_size"])
        self._sinks = int(metadata["attention_sink_size"])
        self.prefill_chunk_size = int(metadata["prefill_chunk_size"])
        if weights is None:
            self._weights = _load(folder, metadata["params"])
        else:
            self._weights = [tvm.runtime.tensor(weights[p["name"]]) for p in metadata["params"]]
        self.reset()

    def reset(self) -> None:
        """Forget the conversation."""
        rolls = self._rolling > 0
        tokens = self._rolling if rolls else self._context
        sizes = (1, tokens, self.prefill_chunk_size, PAGE_SIZE, int(rolls))
        shapes = [tvm.runtime.ShapeTuple([size]) for size in sizes]
        self._cache = self._vm["create_tir_paged_kv_cache"](*shapes)
        tvm.get_global_func("vm.builtin.kv_state_add_sequence")(self._cache, _SEQUENCE)
        if rolls:
            enable = tvm.get_global_func("vm.builtin.attention_kv_cache_enable_sliding_window_for_seq")
            enable(self._cache, _SEQUENCE, self._rolling, self._sinks)

    def step(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits float32 [vocab] after `tokens` (at least one), in chunks where there are many."""
        out = np.empty(0, np.float32)
        for start in range(0, len(tokens), self.prefill_chunk_size):
            out = self._chunk(tokens[start : start + self.prefill_chunk_size])
        return out

    def _chunk(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        ids = tvm.runtime.tensor(np.asarray(tokens, np.int32))
        embedded = self._vm["embed"](ids, self._weights)
        embedded = embedded._create_view((1, *embedded.shape))
        sequence = tvm.runtime.ShapeTuple([_SEQUENCE])
        length = tvm.runtime.ShapeTuple([len(tokens)])
        tvm.get_global_func("vm.builtin.kv_state_begin_forward")(self._cache, sequence, length)
        step = self._vm["prefill" if len(tokens) > 1 else "decode"]
        logits = step(embedded, self._cache, self._weights)[0]
        tvm.get_global_func("vm.builtin.kv_state_end_forward")(self._cache)
        return np.array(logits.numpy()[0, 0])


def _load(folder: Path, params: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The tensors that the library names, in its order, in the dtypes that it takes."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    found = {
        record["name"]: (folder / shard["dataPath"], record)
        for shard in manifest["records"]
        for record in shard["records"]
    }
    out = []
    for param in params:
        path, record = found.get(param["name"], (None, None))
        if path is None or record is None:
            raise StageError(
                f"The library wants {param['name']}, which {MANIFEST_NAME} does not have.",
                remedy="Convert the weights with the quantization that the library was compiled for.",
            )
        if not _fits(param["shape"], record["shape"]) or param["dtype"] != record["dtype"]:
            raise StageError(
                f"{param['name']} is {record['dtype']} {record['shape']}; "
                f"the library wants {param['dtype']} {param['shape']}.",
                remedy="Convert the weights and compile from the same model and quantization.",
            )
        out.append(_read(path, record))
    return out


def _read(path: Path, record: Mapping[str, Any]) -> Any:
    """The tensor of a record, a block at a time: memory holds it once.

    Raises ValueError where the file is too short.
    """
    dtype = record["dtype"]
    # float32 lies on disk as bfloat16.
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "float32" else dtype)
    tensor = tvm.runtime.empty(tuple(record["shape"]), dtype)
    place, left = 0, int(np.prod(record["shape"]))
    with path.open("rb") as stream:
        stream.seek(record["byteOffset"])
        while left:
            block = np.fromfile(stream, stored, min(left, _BLOCK)).astype(dtype, copy=False)
            if not block.size:
                raise ValueError(f"{path.name} ends within {record['name']}")
            tensor._create_view((block.size,), dtype, place).copyfrom(block)
            place, left = place + block.nbytes, left - block.size
    return tensor


def _fits(stated: Sequence[int | str], shape: Sequence[int]) -> bool:
    """Whether a tensor of `shape` is what the library takes: mlc_llm names sizes that may vary."""
    return len(stated) == len(shape) and all(
        isinstance(size, str) or size == actual for size, actual in zip(stated, shape, strict=True)
    )
