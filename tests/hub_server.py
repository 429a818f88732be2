"""A small Hugging Face Hub on loopback, for the real client: models, gates, ranges, broken connections."""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(kw_only=True)
class Repository:
    """One model: its files, and who may have them."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False
    token: str = "hf_right"

    @property
    def commit(self) -> str:
        """A commit hash that changes with the content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in sorted(self.files.items()):
            digest.update(name.encode() + b"\0" + data)
        return digest.hexdigest()


@dataclass(kw_only=True)
class Hub:
    """The state of the server; tests change it while it runs.

    `drop_after`: bodies of these files break off after so many bytes, once for each entry.
    `stall`: bodies of these files stop after their first half until `resume` is set.
    `down`: every answer is 503. `silent`: no answer comes until `resume` is set.
    `redirect`: weights lie elsewhere, as on the Hub. `whole`: ranges are not served.
    """

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    drop_after: dict[str, list[int]] = field(default_factory=dict)
    stall: set[str] = field(default_factory=set)
    resume: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    down: bool = False
    silent: bool = False
    redirect: bool = False
    whole: bool = False
    sent: int = 0
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def gets(self) -> Counter[str]:
        """How often the content of each file was asked for."""
        found = (
            re.search(r"/resolve/[^/]+/(.+)$", path) for method, path, _ in self.requests if method == "GET"
        )
        return Counter(m.group(1) for m in found if m)


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
            if hub.down:
                return self.refuse(503, "", "down")
            if hub.silent:
                hub.stalled.set()
                hub.resume.wait(60)
            if path == "/api/models":
                return self.send_json(self.search())
            if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?(/tree/([^/]+))?", path):
                repository = self.find(m[1], m[2] or m[4] or "main", metadata=True)
                if repository:
                    self.send_json(self.tree(repository) if m[3] else self.info(m[1], repository))
                return None
            if m := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
                return self.send_file(hub.repositories[m[1]], m[2])
            if m := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                repository = self.find(m[1], m[2], metadata=False)
                if repository is None:
                    return None
                if m[3] not in repository.files:
                    return self.refuse(404, "EntryNotFound", "Entry not found")
                if hub.redirect and m[3].endswith(".safetensors"):
                    return self.send_elsewhere(repository, m[1], m[3])
                return self.send_file(repository, m[3])
            return self.refuse(404, "", "no such route")

        def find(self, repo_id: str, revision: str, *, metadata: bool) -> Repository | None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            repository = hub.repositories.get(repo_id)
            known = {r.token for r in hub.repositories.values()} | {"hf_other"}
            if token and token not in known:
                self.refuse(401, "", "Invalid credentials in Authorization header")
            elif repository is None or (repository.private and token != repository.token):
                self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
            elif repository.gated and not metadata and token != repository.token:
                self.refuse(403 if token else 401, "GatedRepo", f"Access to model {repo_id} is restricted")
            elif revision not in (*repository.revisions, repository.commit):
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            else:
                return repository
            return None

        def refuse(self, status: int, code: str, message: str) -> None:
            body = json.dumps({"error": message}).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def info(self, repo_id: str, repository: Repository) -> dict[str, Any]:
            siblings = [
                {"rfilename": n, "size": len(d), "blobId": hashlib.sha1(d, usedforsecurity=False).hexdigest()}
                for n, d in repository.files.items()
            ]
            return {
                "_id": "1",
                "id": repo_id,
                "modelId": repo_id,
                "sha": repository.commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "siblings": siblings,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }

        def search(self) -> list[dict[str, Any]]:
            asked = parse_qs(urlsplit(self.path).query)
            search, author = asked.get("search", [""])[0], asked.get("author", [""])[0]
            return [
                self.info(name, repository)
                for name, repository in hub.repositories.items()
                if not repository.private and search in name and name.startswith(author)
            ]

        def tree(self, repository: Repository) -> list[dict[str, Any]]:
            return [
                {
                    "type": "file",
                    "path": n,
                    "size": len(d),
                    "oid": hashlib.sha1(d, usedforsecurity=False).hexdigest(),
                }
                for n, d in repository.files.items()
            ]

        def send_json(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            hub.sent += len(body)

        def send_elsewhere(self, repository: Repository, repo_id: str, name: str) -> None:
            data = repository.files[name]
            self.send_response(302)
            self.send_header("Location", f"{hub.endpoint}/cdn/{repo_id}/{name}")
            self.send_header("X-Repo-Commit", repository.commit)
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("X-Linked-ETag", f'"{_etag(data)}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_file(self, repository: Repository, name: str) -> None:
            data = repository.files[name]
            start, end = 0, len(data)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and not hub.whole:
                start, end = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(206 if wanted and not hub.whole else 200)
            if wanted and not hub.whole:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.send_header("X-Repo-Commit", repository.commit)
            self.send_header("ETag", f'"{_etag(data)}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            body = data[start:end]
            if cuts := hub.drop_after.get(name):
                self.wfile.write(body[: cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            if name in hub.stall:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                hub.stalled.set()
                hub.resume.wait(60)
                body = body[len(body) // 2 :]
            try:
                self.wfile.write(body)
                hub.sent += end - start
            except ConnectionError:
                self.close_connection = True

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that break off are part of the tests."""


@contextmanager
def serving(**repositories: Repository) -> Iterator[Hub]:
    """A running Hub with `repositories`, each named owner__name."""
    hub = Hub(repositories={name.replace("__", "/"): r for name, r in repositories.items()})
    server = _Server(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()
