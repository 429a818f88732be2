"""One engine with one model on the CPU, timed on request: the other side of `benchmarks.cpu`.

`INTERPRETER -P benchmarks/cpu_child.py {library,torch} FOLDER THREADS`. Reads requests from stdin, one JSON
object a line, and answers each with one: {"prompt": n, "tokens": k} with the seconds that a prompt of n
tokens took and those of k more, one at a time; with "profile": true by kernel, for a library only. The
engines are imported where they are needed, for the interpreter with torch has no TVM.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Engine(Protocol):
    """A conversation: `step` appends tokens and computes the logits after them."""

    def reset(self) -> None:
        """Forget the conversation."""

    def step(self, tokens: Sequence[int]) -> object:
        """The logits after `tokens`."""


def torch_engine(folder: str, threads: int) -> Engine:
    """Transformers' own class of the model in `folder`, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    class Conversation:
        def reset(self) -> None:
            self.cache = DynamicCache(config=model.config)

        def step(self, tokens: Sequence[int]) -> object:
            ids = torch.tensor([tokens])
            return (
                model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits[0, 0].numpy()
            )

    return Conversation()


def library_engine(folder: str, threads: int) -> Engine:
    """The export in `folder` and the library in it."""
    os.environ["TVM_NUM_THREADS"] = str(threads)
    from pathlib import Path

    from engine.catalog import host_library_suffix
    from engine.embedded.local import LocalModel

    return LocalModel(Path(folder), Path(folder) / f"model-cpu{host_library_suffix()}")


def timed(engine: Engine, clock: Callable[[], float], prompt: int, tokens: int) -> dict[str, float]:
    """Seconds of a prompt, and of `tokens` more."""
    engine.reset()
    began = clock()
    engine.step([3 + i % 1000 for i in range(prompt)])
    middle = clock()
    for i in range(tokens):
        engine.step([3 + i])
    return {"prompt": middle - began, "tokens": clock() - middle}


def profiled(engine: Any, prompt: int, tokens: int) -> dict[str, dict[str, float]]:
    """Seconds of each kernel in a prompt, and in `tokens` more.

    Attention is one entry, with the appending to the cache and all else that the runtime does for it.
    """
    engine.reset()
    parts: dict[str, dict[str, float]] = {}
    for name, chunks in (
        ("prompt", [[3 + i % 1000 for i in range(prompt)]]),
        ("tokens", [[3 + i] for i in range(tokens)]),
    ):
        seconds: dict[str, float] = defaultdict(float)
        began = 0.0

        def measure(_function: object, symbol: str, before: bool, *_: object) -> int:
            nonlocal began
            if not before:
                seconds[symbol] += time.perf_counter() - began  # noqa: B023  # called within this turn
            began = time.perf_counter()
            return 0  # go on

        engine._vm.set_instrument(measure)
        for chunk in chunks:
            engine.step(chunk)
        parts[name] = seconds
    return parts


def main() -> None:
    """Answer requests until there are no more."""
    kind, folder, threads = sys.argv[1:]
    engine = {"library": library_engine, "torch": torch_engine}[kind](folder, int(threads))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        # What other processes do hardly changes the processor time of a single thread.
        clock = time.process_time if threads == "1" else time.perf_counter
        profile = request.pop("profile", False)
        answer = profiled(engine, **request) if profile else timed(engine, clock, **request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
