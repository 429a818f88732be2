"""Serves the test page, WebLLM and model folders on the loopback, as WebLLM wants them laid out."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).parent
NODE_MODULES = HERE / "node_modules"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


class Server:
    """A loopback web server: the page at /, npm packages at /npm/, models under paths of their own.

    The host is spelled 127.0.0.1, a secure context; WebLLM treats "localhost" specially.
    """

    def __init__(self) -> None:
        self._folders = {"npm": NODE_MODULES}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, folder: Path) -> str:
        """Serve `folder` and return its URL; each call gives a new one, for WebLLM caches by URL."""
        name = f"folder{len(self._folders)}"
        self._folders[name] = folder
        return f"{self.origin}/{name}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _find(self, path: str) -> Path | None:
        parts = [unquote(part) for part in urlsplit(path).path.split("/") if part]
        if not parts:
            return HERE / "page.html"
        if parts in (["page.js"], ["engine.js"]):
            return HERE / parts[0]
        folder = self._folders.get(parts[0])
        # WebLLM appends resolve/main/ to the URL of a model, as on the Hub.
        rest = parts[3:] if parts[1:3] == ["resolve", "main"] else parts[1:]
        if folder is None or ".." in rest:
            return None
        return folder.joinpath(*rest)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        find = self._find

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = find(self.path)
                if path is None or not path.is_file():
                    self.send_error(404)
                    return
                data = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPES.get(path.suffix, "application/octet-stream"))
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
                pass

        return Handler
