"""Real WebLLM in Node.js, where WebGPU is Dawn's, as in Chromium, on a Vulkan driver with shader-f16.

    with Node() as node:
        page = node.load(model_folder, library)       # and on as with a page of harness.py

Needs `npm ci` in this folder, and lavapipe (lavapipe.py). Chromium runs no page on that driver: it takes
software GPUs other than its own SwiftShader, which has no float16, for none.
"""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self

from browser import lavapipe
from browser.server import HERE
from browser.webllm import BrowserError, Host, check_packages


class Node(Host):
    """One Node.js with one WebLLM; a context manager."""

    def __enter__(self) -> Self:
        check_packages()
        node = shutil.which("node")
        if node is None:
            raise BrowserError("Node.js is missing: install it (Debian: apt install nodejs npm).")
        try:
            environment = {**os.environ, **lavapipe.environment()}
        except lavapipe.Missing as missing:
            raise BrowserError(f"{missing} Or run tests/run.py, which gets it.") from None
        self.server.__enter__()
        self._process = subprocess.Popen(
            [node, "node.mjs", self.server.origin],
            cwd=HERE, env=environment, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        streams = (self._process.stdout, self._answers.put), (self._process.stderr, self.console.append)
        self._readers = [threading.Thread(target=self._read, args=stream, daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):  # words that the process no longer reads
                pipe.close()
        self.server.__exit__(None, None, None)

    def answer(self, method: str, args: Sequence[Any]) -> dict[str, Any]:
        """Ask node.mjs."""
        request = json.dumps({"method": method, "args": args})
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
            reply = self._answers.get(timeout=self.timeout)
        except queue.Empty:
            self._process.kill()
            raise BrowserError(f"No answer within {self.timeout:g} seconds.\n{self.console_end()}") from None
        except OSError:  # a broken pipe
            reply = ""
        if not reply:
            code = self._process.wait()
            self._readers[1].join()
            raise BrowserError(f"Node.js ended with exit code {code}.\n{self.console_end()}")
        return dict(json.loads(reply))

    @staticmethod
    def _read(stream: IO[str], keep: Any) -> None:
        for line in stream:
            keep(line.rstrip("\n"))
        keep("")
