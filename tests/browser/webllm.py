"""What WebLLM does for the tests, wherever it runs: load a model, talk, show the logits of every step."""

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from browser.server import NODE_MODULES, Server
from numpy.typing import NDArray

WEBLLM_VERSION = "0.2.86"
CONSOLE_LINES = 40


class BrowserError(AssertionError):
    """Something where WebLLM runs failed; the message holds what it and its console said."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What WebLLM answered: `tokens` sampled, and the float32 `logits` [steps, vocab] of each.

    The logits are the model's own, before logit bias, penalties and temperature; in JSON mode tokens
    that the grammar forbids are already masked in them. `tokens` ends with the stop token, if any.
    """

    text: str
    tokens: list[int]
    logits: NDArray[np.float32]
    finish_reason: str
    usage: dict[str, Any]


def check_packages() -> None:
    manifest = NODE_MODULES / "@mlc-ai" / "web-llm" / "package.json"
    found = json.loads(manifest.read_text())["version"] if manifest.is_file() else "none"
    if found != WEBLLM_VERSION:
        raise BrowserError(
            f"@mlc-ai/web-llm is {found}, must be {WEBLLM_VERSION}: run `npm ci` in {NODE_MODULES.parent}"
        )


class Host(ABC):
    """Where WebLLM runs, with one model at a time: a page of Chromium (harness.py), or Node.js (node.py)."""

    def __init__(self, *, timeout: float = 300) -> None:
        """`timeout` is the seconds that one call may take before WebLLM is ended."""
        self.timeout = timeout
        self.console: list[str] = []
        self.server = Server()

    @abstractmethod
    def answer(self, method: str, args: Sequence[Any]) -> dict[str, Any]:
        """What engine.js answers: {value} or {error}. Raises BrowserError where there is no answer."""

    def load(self, model: Path, library: Path, *, overrides: dict[str, Any] | None = None) -> "Page":
        """Load the model folder `model` with the WebAssembly `library` into a new engine.

        `overrides` are merged into mlc-chat-config.json as WebLLM's model record does. Raises
        BrowserError with WebLLM's message where it refuses.
        """
        served = self.server.add(model)
        record = {
            "model": f"{served}/resolve/main/",
            "model_id": served.rsplit("/", 1)[1],
            "model_lib": f"{self.server.add(library.parent)}/{library.name}",
            "overrides": overrides or {},
        }
        self.call("load", record, {})
        return Page(self)

    def adapter(self) -> dict[str, Any]:
        """Vendor, architecture and features of the WebGPU adapter."""
        return dict(self.call("adapter"))

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of engine.js and return its value; raises BrowserError for its error."""
        result = self.answer(method, args)
        if "error" in result:
            raise BrowserError(f"{method}: {result['error']}\n{self.console_end()}")
        return result.get("value")  # JSON has no undefined

    def console_end(self) -> str:
        """The end of the console."""
        return "\n".join(["console:", *self.console[-CONSOLE_LINES:]])


class Page:
    """A loaded model. A later `Host.load` replaces it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        logits: bool = True,
        force: Sequence[int] = (),
        **options: Any,
    ) -> Reply:
        """`engine.chat.completions.create`; options as OpenAI names them (temperature, top_p, seed, ...).

        A conversation that repeats the earlier messages goes on in the same KV cache, as in WebLLM.
        `force` samples these token ids first, whatever the logits, so that a known sequence can be
        followed step by step; max_tokens is their number where not given.
        """
        request = {"messages": list(messages), **_limits(options, force)}
        return _reply(self._host.call("chat", request, {"force": list(force), "keep": logits}), "chat")

    def complete(
        self, prompt: str, *, logits: bool = True, force: Sequence[int] = (), **options: Any
    ) -> Reply:
        """`engine.completions.create`: `prompt` without a conversation template; options as in `chat`."""
        request = {"prompt": prompt, **_limits(options, force)}
        return _reply(self._host.call("complete", request, {"force": list(force), "keep": logits}), "text")

    def forward(self, tokens: Sequence[int], *, prefill: bool = True) -> NDArray[np.float32]:
        """Feed raw token ids to the model after what it has seen: the float32 [vocab] logits that follow.

        `prefill=False` runs the function `decode`, for one token.
        """
        got = self._host.call("forward", list(tokens), prefill, {"force": [], "keep": True})
        return _logits(got)[-1]

    def reset(self) -> None:
        """Forget everything the model has seen."""
        self._host.call("reset")

    def run(self, function: str, *arrays: NDArray[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Call a function of the library on float32, int32 or uint32 arrays.

        Gives its results, and the arguments as they are afterwards, for functions that write in place.
        """
        packed = [
            {
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
            }
            for array in arrays
        ]
        got = self._host.call("call", function, packed)
        results, inputs = ([_array(part) for part in got[key]] for key in ("results", "inputs"))
        return results, inputs


def _limits(options: dict[str, Any], force: Sequence[int]) -> dict[str, Any]:
    return {"max_tokens": len(force), **options} if force else options


def _array(part: dict[str, Any]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(part["data"]), dtype=part["dtype"]).reshape(part["shape"])


def _logits(got: dict[str, Any]) -> NDArray[np.float32]:
    flat = np.frombuffer(base64.b64decode(got["logits"]), dtype="<f4")
    return flat.reshape(got["steps"], -1) if got["steps"] else flat.reshape(0, 0)


def _reply(got: dict[str, Any], kind: str) -> Reply:
    choice = got["response"]["choices"][0]
    return Reply(
        text=(choice["message"]["content"] if kind == "chat" else choice["text"]) or "",
        tokens=[int(token) for token in got["tokens"]],
        logits=_logits(got),
        finish_reason=choice["finish_reason"],
        usage=got["response"].get("usage") or {},
    )
