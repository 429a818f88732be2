"""What is told of a Hub model before it is fetched: the real Hub client, against a small Hub on loopback."""

import json
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hub_client import Client, files_of, hub
from hub_server import Hub, Repository
from safetensors.numpy import save

from engine.errors import Cancelled, HubUnreachable, NotAuthorizedError, UsageError
from engine.model import facts, nearby, remote
from engine.model.facts import ModelFacts

__all__ = ["hub"]


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client; what this process starts uses the same Hub and cache."""
    made = Client(hub, tmp_path / "hf")
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in made.environment().items():
        if name.startswith("HF_") or name.lower() == "no_proxy":
            monkeypatch.setenv(name, value)
    return made


def looked(repo_id: str, revision: str = "", limit: float | None = None) -> list[ModelFacts]:
    return list(remote.look(repo_id, revision, "auto", threading.Event(), limit=limit))


@pytest.mark.parametrize("redirect", [False, True], ids=["direct", "redirected"])
@pytest.mark.parametrize("repo_id", ["org/tiny", "org/sharded"])
def test_facts_are_those_of_the_fetched_model(client: Client, hub: Hub, repo_id: str, redirect: bool) -> None:
    hub.redirect = redirect
    by_config, exact = looked(repo_id)
    requests = list(hub.requests)
    small = {"config.json", "tokenizer_config.json", "model.safetensors.index.json"}
    for method, path, headers in requests:
        name = path.rpartition("/")[2]
        if method == "GET" and "/resolve/" in path and name not in small:
            assert name.endswith(".safetensors")
            assert headers["range"] == "bytes=0-100000"
    hub.redirect = False
    fetched = client.fetch(repo_id, "--revision", exact.commit)
    real = facts.read(fetched.folder)
    progress = fetched.records("progress")[0]
    assert exact.commit == fetched.records("result")[0]["revision"] == hub.repositories[repo_id].commit
    assert exact.download_bytes == progress["total"] - progress["done"]
    assert exact.folder == real.folder
    assert exact.tensors == real.tensors
    assert list(exact.tensors) == list(real.tensors)
    same = ("spec", "parameters", "dtype", "max_context", "window")
    for field in (*same, "tokenizer_files", "tokenizer_bytes", "has_chat_template", "parameter_count"):
        assert getattr(exact, field) == getattr(real, field), field
    assert exact.source_bytes == real.source_bytes
    assert exact.largest_tensor_bytes == real.largest_tensor_bytes
    # Before the headers the shapes are those of config.json, the bytes those of the files.
    assert by_config.spec == real.spec
    assert not by_config.tensors
    assert by_config.parameter_count == real.parameter_count
    assert by_config.source_bytes > real.source_bytes
    # Now that all is here, nothing is left to fetch.
    [*_, again] = looked(repo_id)
    assert again.remote is None
    assert (again.commit, again.tensors, again.download_bytes) == (exact.commit, real.tensors, 0)


def test_a_long_header_takes_a_second_request(client: Client, hub: Hub) -> None:
    files = hub.repositories["org/tiny"].files
    infos = facts.read(Path(__file__).parent / "data" / "golden" / "gemma3_text" / "hf").tensors
    tensors = {name: np.zeros(info.shape, np.float16) for name, info in infos.items()}
    files["model.safetensors"] = save(tensors, {"told": "x" * 150_000})
    [_, exact] = looked("org/tiny")
    assert exact.dtype == "F16"
    assert exact.source_bytes == sum(t.nbytes for t in tensors.values())
    asked = [h["range"] for _, path, h in hub.requests if path.endswith("model.safetensors")]
    assert len(asked) == 2
    assert asked[1].startswith("bytes=8-")
    assert hub.sent < len(files["model.safetensors"])


def test_a_chat_template_of_its_own_saves_reading_the_tokenizer(client: Client, hub: Hub) -> None:
    hub.repositories["org/tiny"].files["chat_template.jinja"] = b"{{ messages }}"
    [_, exact] = looked("org/tiny")
    assert exact.has_chat_template
    assert "tokenizer_config.json" not in hub.gets()


def test_weights_without_headers_to_read_are_told_by_config_and_file_sizes(client: Client, hub: Hub) -> None:
    files = files_of("gemma3_text")
    real = facts.read(Path(__file__).parent / "data" / "golden" / "gemma3_text" / "hf")
    del files["model.safetensors"]
    hub.repositories["org/old"] = Repository(files=files | {"pytorch_model.bin": b"p" * 700_000})
    found = looked("org/old")[-1]
    assert not found.tensors
    assert found.spec == real.spec
    assert (found.dtype, found.source_bytes) == ("BF16", 700_000)
    assert found.parameter_count == real.parameter_count
    assert found.largest_tensor_bytes == real.largest_tensor_bytes
    assert hub.gets()["pytorch_model.bin"] == 0


def test_a_mirror_that_serves_no_ranges_sends_no_weights(client: Client, hub: Hub) -> None:
    hub.whole = True
    hub.repositories["org/tiny"].files["model.safetensors"] = bytes(40_000_000)
    found = looked("org/tiny")[-1]
    assert not found.tensors
    assert found.source_bytes == 40_000_000
    assert hub.sent < 40_000_000


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("model.safetensors", lambda data: data[: len(data) // 2], "is truncated"),
        ("model.safetensors", lambda _: b"<html>" * 100, "no valid safetensors"),
        ("model.safetensors", lambda _: b"\x02" + bytes(7) + b"[]", "no valid safetensors"),
        ("model.safetensors", lambda data: data.replace(b'"BF16"', b'"F32" ', 1), "no valid safetensors"),
        ("config.json", lambda _: b"{", "not valid JSON"),
        ("config.json", lambda data: data.replace(b'"vocab_size": ', b'"vocab_size": 1'), "Wrong shape"),
    ],
)
def test_what_is_wrong_with_a_model_is_told_before_it_is_fetched(
    client: Client, hub: Hub, name: str, change, said: str
) -> None:
    files = hub.repositories["org/tiny"].files
    before = files[name]
    files[name] = change(before)
    assert files[name] != before
    with pytest.raises(UsageError, match=said):
        looked("org/tiny")


def test_an_index_of_another_version_is_told(client: Client, hub: Hub) -> None:
    files = hub.repositories["org/sharded"].files
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"]["lm_head.weight"] = "model-00001-of-00006.safetensors"
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(UsageError, match="which does not hold it"):
        looked("org/sharded")


def test_gated_private_and_missing_models(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAuthorizedError, match="gated") as gated:
        looked("org/gated")
    assert "accept the licence" in gated.value.remedy
    with pytest.raises(NotAuthorizedError, match="no public model org/private"):
        looked("org/private")
    with pytest.raises(NotAuthorizedError) as misspelt:
        looked("ogr/tiny")
    assert misspelt.value.remedy.startswith("Did you mean org/tiny?")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(NotAuthorizedError, match="your Hub token may not read it"):
        looked("org/gated")
    with pytest.raises(UsageError, match="no model org/shraded") as unknown:
        looked("org/shraded")
    assert unknown.value.remedy.startswith("Did you mean org/sharded?")
    with pytest.raises(UsageError, match="no revision 'v9'"):
        looked("org/tiny", "v9")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(NotAuthorizedError, match="does not accept your token") as expired:
        looked("org/tiny")
    assert "hf_expired" not in str(expired.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert looked("org/gated")[-1].tensors


def test_by_hand_stdout_is_data_and_an_error_is_there_too(client: Client) -> None:
    found = client.look("org/tiny", "--revision", "v1", MLC_WIZARD_RECORDS="0")
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["look", "headers", "complete"]
    assert lines[-1]["complete"]["tensors"] == len(lines[1]["headers"]["tensors"])
    assert found.stderr == ""
    gated = client.look("org/gated", MLC_WIZARD_RECORDS="0")
    assert gated.code == 4
    [told] = [json.loads(line)["error"] for line in gated.stdout.splitlines()]
    assert (told["kind"], told["exit_code"]) == ("NotAuthorizedError", 4)
    assert told["what"] in gated.stderr


def test_no_network(client: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.down = True
    with pytest.raises(HubUnreachable, match="error 503"):
        looked("org/tiny")
    hub.down = False
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        looked("org/tiny")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        looked("org/tiny")


@pytest.mark.parametrize("silent", [True, False], ids=["from the start", "in a file"])
def test_a_hub_that_stalls_is_given_up_and_leaves_no_half_file(
    client: Client, hub: Hub, silent: bool
) -> None:
    hub.silent = silent
    hub.stall = {"config.json"}
    with pytest.raises(HubUnreachable, match="within 4 seconds"):
        looked("org/tiny", limit=4)
    assert hub.stalled.is_set()
    assert half_files(client) == []


def test_a_look_that_is_stopped_leaves_no_half_file(client: Client, hub: Hub) -> None:
    hub.stall = {"config.json"}
    child = client.start("org/tiny", module="look")
    assert hub.stalled.wait(60)
    if sys.platform == "win32":
        child.kill()
        child.communicate(timeout=60)
        return
    assert half_files(client)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert half_files(client) == []


def test_cancelling_ends_the_child(client: Client, hub: Hub) -> None:
    hub.stall = {"model.safetensors"}
    cancel = threading.Event()
    found = remote.look("org/tiny", "", "auto", cancel)
    assert next(found).spec is not None
    assert hub.stalled.wait(60)
    cancel.set()
    with pytest.raises(Cancelled):
        next(found)


def half_files(client: Client) -> list[Path]:
    return [p for p in client.home.rglob("*") if p.name.endswith(".incomplete")]


def test_a_look_hides_no_model_that_was_fetched_before(client: Client, hub: Hub) -> None:
    for repo_id in ("org/tiny", "org/sharded"):
        folder = client.fetch(repo_id).folder
        hub.repositories[repo_id].files["config.json"] += b"\n"
        [*_, newer] = looked(repo_id)
        assert newer.commit == hub.repositories[repo_id].commit != folder.name
        assert nearby.cached_snapshot(repo_id) == folder
        assert nearby.cached_snapshot(repo_id, newer.commit) is None
        hub.down = True
        assert client.fetch(repo_id).folder == folder
        hub.down = False


def test_a_model_fetched_by_its_commit_is_found_by_its_name(client: Client, hub: Hub) -> None:
    commit = hub.repositories["org/sharded"].commit
    folder = client.fetch("org/sharded", "--revision", commit).folder
    found = remote.cached("org/sharded", "", "auto")
    assert found is not None
    assert (found.folder, found.commit) == (folder, commit)
    hub.down = True
    assert client.fetch("org/sharded").folder == folder
