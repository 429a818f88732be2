"""A library for this machine, driven as MLC's engine does: several sequences in one cache.

What is called, with which shapes and in which order is that of `cpp/serve/model.cc` and
`cpp/serve/function_table.cc` of mlc-llm (docs/native-contract.md).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax
from tvm.runtime import ShapeTuple

Floats = NDArray[np.float32]


def _builtin(name: str) -> Any:
    return tvm.get_global_func(f"vm.builtin.{name}")


class NativeEngine:
    """The functions of a library with the weights of an export, and a cache of up to `sequences`."""

    def __init__(self, folder: Path, library: Path, sequences: int, *, page_size: int = 16) -> None:
        self.vm = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        self.metadata = json.loads(str(self.vm["_metadata"]()))
        _builtin("tensor_cache.load")(str(folder), tvm.cpu().dlpack_device_type(), 0)
        names = [param["name"] for param in self.metadata["params"]]
        self.params = _builtin("param_array_from_cache_by_name")(names)
        _builtin("tensor_cache.clear")()
        context, chunk = self.metadata["context_window_size"], self.metadata["prefill_chunk_size"]
        sizes = (sequences, context * sequences, chunk, page_size, 0)
        self.cache = self.vm["create_tir_paged_kv_cache"](*(ShapeTuple([size]) for size in sizes))
        self.embeddings = self.vm["alloc_embedding_tensor"]()

    def add(self, sequence: int) -> None:
        """Open a sequence."""
        _builtin("kv_state_add_sequence")(self.cache, sequence)

    def fork(self, parent: int, child: int, position: int = -1) -> None:
        """Open `child` with the tokens of `parent` before `position`, all of them for -1."""
        _builtin("kv_state_fork_sequence")(self.cache, parent, child, position)

    def remove(self, sequence: int) -> None:
        """Close a sequence."""
        _builtin("kv_state_remove_sequence")(self.cache, sequence)

    def popn(self, sequence: int, count: int) -> None:
        """Forget the last `count` tokens of a sequence."""
        _builtin("kv_state_popn")(self.cache, sequence, count)

    @property
    def free_pages(self) -> int:
        """Pages of the cache that no sequence has."""
        return int(_builtin("attention_kv_cache_get_num_available_pages")(self.cache))

    def _embed(self, tokens: Sequence[int]) -> Any:
        return self.vm["embed"](tvm.runtime.tensor(np.asarray(tokens, np.int32)), self.params)

    def _step(self, lengths: Mapping[int, int], name: str, *args: Any) -> Floats:
        ids, counts = ShapeTuple(list(lengths)), ShapeTuple(list(lengths.values()))
        _builtin("kv_state_begin_forward")(self.cache, ids, counts)
        logits = self.vm[name](*args, self.cache, self.params)[0].numpy()
        _builtin("kv_state_end_forward")(self.cache)
        return np.array(logits)

    def prefill(self, prompts: Mapping[int, Sequence[int]]) -> Floats:
        """Logits [b, vocab] after each of `prompts`, which are gathered in the library's own tensor."""
        ends = np.cumsum([len(tokens) for tokens in prompts.values()])
        where = np.from_dlpack(self.embeddings)
        for end, tokens in zip(ends, prompts.values(), strict=True):
            piece = self._embed(tokens).numpy()
            assert piece.dtype == where.dtype
            where[end - len(tokens) : end] = piece
        view = self.embeddings._create_view((1, int(ends[-1]), where.shape[1]))
        lengths = {sequence: len(tokens) for sequence, tokens in prompts.items()}
        if len(prompts) == 1:
            logits = self._step(lengths, "prefill", view)
        else:
            positions = tvm.runtime.tensor((ends - 1).astype(np.int32))
            logits = self._step(lengths, "batch_prefill", view, positions)
        assert logits.shape[:2] == (1, len(prompts))
        return logits[0]

    def decode(self, tokens: Mapping[int, int]) -> Floats:
        """Logits [b, vocab] after one token of each sequence."""
        embedded = self._embed(list(tokens.values()))
        view = embedded._create_view((len(tokens), 1, embedded.shape[1]))
        name = "decode" if len(tokens) == 1 else "batch_decode"
        logits = self._step(dict.fromkeys(tokens, 1), name, view)
        assert logits.shape[:2] == (len(tokens), 1)
        return logits[:, 0]
