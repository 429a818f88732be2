"""Real WebLLM in a real browser: load a compiled model, talk to it, and see its logits at every step.

    with Browser() as browser:
        page = browser.load(model_folder, library)
        reply = page.chat([{"role": "user", "content": "Hello"}], temperature=0, max_tokens=8)
        reply.logits                                  # float32 [steps, vocab], before any sampling option

Needs `npm ci` in this folder, and Chromium. WebGPU is SwiftShader's, on the CPU: no shader-f16.
"""

import base64
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from browser import chromium
from browser.server import NODE_MODULES, Server
from numpy.typing import NDArray
from playwright.sync_api import ConsoleMessage, Error, sync_playwright

WEBLLM_VERSION = "0.2.86"
START_SECONDS = 60
CONSOLE_LINES = 40


class BrowserError(AssertionError):
    """Something in the page failed; the message holds what the page and its console said."""


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


def _check_packages() -> None:
    manifest = NODE_MODULES / "@mlc-ai" / "web-llm" / "package.json"
    found = json.loads(manifest.read_text())["version"] if manifest.is_file() else "none"
    if found != WEBLLM_VERSION:
        raise BrowserError(
            f"@mlc-ai/web-llm is {found}, must be {WEBLLM_VERSION}: run `npm ci` in {NODE_MODULES.parent}"
        )


class Browser:
    """One Chromium with one page; a context manager."""

    def __init__(self, *, timeout: float = 300) -> None:
        """`timeout` is the seconds that one call may take before the browser is ended."""
        self.timeout = timeout
        self.console: list[str] = []

    def __enter__(self) -> Self:
        _check_packages()
        self._server = Server().__enter__()
        # Playwright's synchronous form allows one instance a thread, and other tests have theirs.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser")
        self._profile = tempfile.TemporaryDirectory(prefix="mlc-wizard-browser-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [
                chromium.executable(),
                *chromium.FLAGS,
                "--headless",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._profile.name}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.submit(self._connect)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A hanging page does not answer a polite request to close.
        self._process.kill()
        self._process.wait()
        self._worker.submit(self._disconnect).result()
        self._worker.shutdown()
        self._server.__exit__(None, None, None)
        self._profile.cleanup()

    def load(self, model: Path, library: Path, *, overrides: dict[str, Any] | None = None) -> "Page":
        """Load the model folder `model` with the WebAssembly `library` into a new engine.

        `overrides` are merged into mlc-chat-config.json as WebLLM's model record does. Raises
        BrowserError with WebLLM's message where it refuses.
        """
        served = self._server.add(model)
        record = {
            "model": f"{served}/resolve/main/",
            "model_id": served.rsplit("/", 1)[1],
            "model_lib": f"{self._server.add(library.parent)}/{library.name}",
            "overrides": overrides or {},
        }
        self.call("load", record, {})
        return Page(self)

    def adapter(self) -> dict[str, Any]:
        """Vendor, architecture and features of the WebGPU adapter."""
        return dict(self.call("adapter"))

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of page.js and return its value; raises BrowserError for its error."""
        result = self.submit(
            lambda: self._page.evaluate("([method, args]) => window.harness(method, ...args)", [method, args])
        )
        if "error" in result:
            raise BrowserError(f"{method}: {result['error']}\n{self._console()}")
        return result["value"]

    def submit(self, work: Callable[[], Any]) -> Any:
        """Run `work` on the thread that owns the page."""
        try:
            return self._worker.submit(work).result(self.timeout)
        except TimeoutError:
            self._process.kill()
            raise BrowserError(f"No answer within {self.timeout:g} seconds.\n{self._console()}") from None
        except Error as error:
            raise BrowserError(f"{error.message}\n{self._console()}") from None

    def _console(self) -> str:
        return "\n".join(["console:", *self.console[-CONSOLE_LINES:]])

    def _connect(self) -> None:
        self._playwright = sync_playwright().start()
        remote = self._playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{self._port()}")
        self._page = remote.contexts[0].pages[0]
        self._page.on("console", self._heard)
        self._page.on("pageerror", lambda error: self.console.append(f"page error: {error}"))
        self._page.on("crash", lambda _: self.console.append("the page crashed"))
        self._page.goto(f"{self._server.origin}/")
        self._page.wait_for_function("window.harness !== undefined", timeout=START_SECONDS * 1000)

    def _heard(self, message: ConsoleMessage) -> None:
        self.console.append(f"{message.type}: {message.text}")

    def _port(self) -> int:
        """The debugging port that Chromium chose and wrote down."""
        note = Path(self._profile.name) / "DevToolsActivePort"
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise BrowserError(f"Chromium ended with exit code {self._process.returncode}.")
            if note.is_file() and (lines := note.read_text().splitlines()):
                return int(lines[0])
            time.sleep(0.05)
        raise BrowserError(f"Chromium did not start within {START_SECONDS} seconds.")

    def _disconnect(self) -> None:
        if hasattr(self, "_playwright"):
            self._playwright.stop()


class Page:
    """A loaded model. A later `Browser.load` replaces it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

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
        return _reply(self._browser.call("chat", request, {"force": list(force), "keep": logits}), "chat")

    def complete(
        self, prompt: str, *, logits: bool = True, force: Sequence[int] = (), **options: Any
    ) -> Reply:
        """`engine.completions.create`: `prompt` without a conversation template; options as in `chat`."""
        request = {"prompt": prompt, **_limits(options, force)}
        return _reply(self._browser.call("complete", request, {"force": list(force), "keep": logits}), "text")

    def forward(self, tokens: Sequence[int], *, prefill: bool = True) -> NDArray[np.float32]:
        """Feed raw token ids to the model after what it has seen: the float32 [vocab] logits that follow.

        `prefill=False` runs the function `decode`, for one token.
        """
        got = self._browser.call("forward", list(tokens), prefill, {"force": [], "keep": True})
        return _logits(got)[-1]

    def reset(self) -> None:
        """Forget everything the model has seen."""
        self._browser.call("reset")

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
        got = self._browser.call("call", function, packed)
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
