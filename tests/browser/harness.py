"""Real WebLLM in a real browser: load a compiled model, talk to it, and see its logits at every step.

    with Browser() as browser:
        page = browser.load(model_folder, library)
        reply = page.chat([{"role": "user", "content": "Hello"}], temperature=0, max_tokens=8)
        reply.logits                                  # float32 [steps, vocab], before any sampling option

Needs `npm ci` in this folder, and Chromium. WebGPU is SwiftShader's, on the CPU: no shader-f16, for which
there is node.py.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from browser import chromium
from browser.webllm import BrowserError, Host, Page, Reply, check_packages
from playwright.sync_api import ConsoleMessage, Error, sync_playwright

START_SECONDS = 60


class Browser(Host):
    """One Chromium with one page; a context manager."""

    def __enter__(self) -> Self:
        check_packages()
        self.server.__enter__()
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
        self.server.__exit__(None, None, None)
        self._profile.cleanup()

    def answer(self, method: str, args: Sequence[Any]) -> dict[str, Any]:
        """Ask page.js."""
        return dict(
            self.submit(
                lambda: self._page.evaluate(
                    "([method, args]) => window.harness(method, ...args)", [method, list(args)]
                )
            )
        )

    def submit(self, work: Callable[[], Any]) -> Any:
        """Run `work` on the thread that owns the page."""
        try:
            return self._worker.submit(work).result(self.timeout)
        except TimeoutError:
            self._process.kill()
            raise BrowserError(f"No answer within {self.timeout:g} seconds.\n{self.console_end()}") from None
        except Error as error:
            raise BrowserError(f"{error.message}\n{self.console_end()}") from None

    def _connect(self) -> None:
        self._playwright = sync_playwright().start()
        remote = self._playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{self._port()}")
        self._page = remote.contexts[0].pages[0]
        self._page.on("console", self._heard)
        self._page.on("pageerror", lambda error: self.console.append(f"page error: {error}"))
        self._page.on("crash", lambda _: self.console.append("the page crashed"))
        self._page.goto(f"{self.server.origin}/")
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


__all__ = ["Browser", "BrowserError", "Page", "Reply"]
