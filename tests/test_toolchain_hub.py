"""Probes of the Hub: whether it answers, and whether it knows the token."""

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.toolchain.check import Found, check
from engine.toolchain.finding import Finding, to_json
from engine.toolchain.registry import BY_ID


class Answering(http.server.BaseHTTPRequestHandler):
    """A Hub that knows one token."""

    def do_GET(self) -> None:
        token = self.headers.get("authorization", "")
        status, body = (200, [{"id": "a/b"}]) if self.path.startswith("/api/models") else (404, {})
        if self.path.startswith("/api/whoami"):
            status, body = (200, {"name": "ada"}) if token.endswith("hf_good") else (401, {"error": "no"})
        if self.server.status:  # type: ignore[attr-defined]
            status = self.server.status  # type: ignore[attr-defined]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.status = 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def asked(hub: http.server.ThreadingHTTPServer, tmp_path: Path) -> Callable[..., Finding]:
    """What a child finds of the Hub: its client reads its settings once, when it is imported."""

    def ask(name: str, status: int = 0, **changes: str) -> Finding:
        hub.status = status  # type: ignore[attr-defined]
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path), "HF_TOKEN": ""}
        env |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"} | changes
        events = list(check([BY_ID[name]], threading.Event(), seconds=100, env=env))
        assert isinstance(events[-1], Found)
        return events[-1].finding

    return ask


def test_the_hub_answers_and_knows_a_token(asked: Callable[..., Finding]) -> None:
    assert asked("hub").found.endswith("answers")
    good = asked("hub", HF_TOKEN="hf_good")
    assert (good.status, good.found.partition(" ")[2]) == ("ok", "answers, and knows the token as ada's")
    bad = asked("hub", HF_TOKEN="hf_secret_that_expired")
    assert (bad.status, "does not accept the token" in bad.found) == ("warn", True)
    assert "secret" not in json.dumps(to_json(bad))


def test_a_hub_that_does_not_answer_is_a_warning(asked: Callable[..., Finding]) -> None:
    gone = asked("hub", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_secret")
    assert (gone.status, "cannot be reached" in gone.found) == ("warn", True)
    assert "secret" not in json.dumps(to_json(gone))
    ill = asked("hub", 503)
    assert (ill.status, "error 503" in ill.found) == ("warn", True)
    forbidden = asked("hub", HF_HUB_OFFLINE="1")
    assert (forbidden.status, "HF_HUB_OFFLINE" in forbidden.found) == ("warn", True)


def test_a_hub_that_keeps_silent_is_a_warning_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes calls, and says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = {
            "HF_ENDPOINT": address,
            "HF_TOKEN": "hf_secret",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        events = list(check([BY_ID["hub"]], threading.Event(), seconds=4, env=env))
    assert isinstance(events[-1], Found)
    assert events[-1].finding.status == "warn"
    assert "secret" not in json.dumps(to_json(events[-1].finding))


def test_a_token_is_told_by_its_place_alone(asked: Callable[..., Finding], tmp_path: Path) -> None:
    assert asked("hub-token").status == "warn"
    given = asked("hub-token", HF_TOKEN="hf_secret")
    assert (given.status, given.found) == ("ok", "in HF_TOKEN")
    (tmp_path / "token").write_text("hf_secret")
    stored = asked("hub-token")
    assert (stored.status, stored.found) == ("ok", f"in {tmp_path / 'token'}")
    odd = asked("hub-token", HF_TOKEN="my secret")
    assert odd.status == "warn"
    assert not any("secret" in json.dumps(to_json(finding)) for finding in (given, stored, odd))
