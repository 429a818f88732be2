"""The fetch child with the real Hub client, against a small Hub on loopback."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_client import EXTRA, GOLDEN, RECORD, Client, files_of, hub
from hub_server import Hub, Repository
from torch_files import save_sharded

from engine.model import facts
from engine.model.lora import open_adapter
from engine.model.tensors import open_tensors

__all__ = ["hub"]


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "hf")


def test_only_the_needed_files_come_with_progress_in_bytes(client: Client, hub: Hub) -> None:
    found = client.fetch("org/tiny")
    expected = files_of("gemma3_text")
    assert {p.name: p.read_bytes() for p in found.folder.iterdir()} == expected
    assert found.records("result")[0]["revision"] == hub.repositories["org/tiny"].commit
    assert facts.read(found.folder).model_type == "gemma3_text"
    progress = found.records("progress")
    total = sum(map(len, expected.values()))
    assert {p["total"] for p in progress} == {total}
    assert {p["unit"] for p in progress} == {"bytes"}
    done = [p["done"] for p in progress]
    assert done[0] == 0
    assert done == sorted(done)
    assert done[-1] == total
    assert set(hub.gets()) == set(expected)


def test_shards_come_with_their_index_and_by_hand_stdout_is_data(client: Client) -> None:
    found = client.fetch("org/sharded", MLC_WIZARD_RECORDS="0")
    told = json.loads(found.stdout)
    assert {p.name for p in Path(told["folder"]).iterdir()} == set(files_of("llama"))
    assert RECORD not in found.stderr


def test_what_is_cached_is_not_fetched_again_and_serves_offline(client: Client, hub: Hub) -> None:
    first = client.fetch("org/tiny", "--revision", "v1").folder
    fetched = hub.gets()
    second = client.fetch("org/tiny", "--revision", "v1")
    assert second.folder == first
    assert hub.gets() == fetched
    assert second.records("progress")[0]["done"] == second.records("progress")[0]["total"]
    hub.down = True
    down = client.fetch("org/tiny", "--revision", "v1")
    assert down.folder == first
    assert "cannot be reached: using org/tiny as fetched before" in down.stderr
    offline = client.fetch("org/tiny", "--revision", hub.repositories["org/tiny"].commit, HF_HUB_OFFLINE="1")
    assert offline.folder == first


def test_no_network_and_nothing_cached(client: Client, hub: Hub) -> None:
    hub.down = True
    down = client.fetch("org/tiny")
    assert down.code == 1
    assert "error 503" in down.error
    nobody = client.fetch("org/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert nobody.code == 1
    assert "http://127.0.0.1:9 cannot be reached" in nobody.error
    assert "HTTPS_PROXY" in nobody.error
    offline = client.fetch("org/tiny", HF_HUB_OFFLINE="1")
    assert offline.code == 1
    assert "HF_HUB_OFFLINE" in offline.error


def test_a_copy_without_all_weights_does_not_serve(client: Client, hub: Hub) -> None:
    folder = client.fetch("org/sharded").folder
    (folder / "model-00003-of-00006.safetensors").unlink()
    hub.down = True
    assert client.fetch("org/sharded").code == 1
    hub.down = False
    assert client.fetch("org/sharded").folder == folder
    assert len(facts.read(folder).tensors) > 0


def test_gated_models(client: Client) -> None:
    without = client.fetch("org/gated")
    assert without.code == 4
    assert "org/gated is gated" in without.error
    assert f"Sign in at {client.hub.endpoint}/org/gated and accept the licence" in without.error
    assert "hf auth login" in without.error
    other = client.fetch("org/gated", HF_TOKEN="hf_other")
    assert other.code == 4
    assert "your Hub token may not read it" in other.error
    assert "hf_other" not in other.stderr + other.stdout
    assert client.fetch("org/gated", HF_TOKEN="hf_right").folder.is_dir()


def test_private_models_and_tokens(client: Client) -> None:
    unknown = client.fetch("org/private")
    assert unknown.code == 4
    assert "no public model org/private" in unknown.error
    bad = client.fetch("org/private", HF_TOKEN="hf_expired")
    assert bad.code == 4
    assert "does not accept your token" in bad.error
    assert "hf_expired" not in bad.stderr + bad.stdout
    client.home.mkdir(exist_ok=True)
    (client.home / "token").write_text("hf_private")  # where `hf auth login` puts it
    good = client.fetch("org/private")
    assert good.folder.is_dir()
    assert "hf_private" not in good.stderr + good.stdout


def test_wrong_ids_and_revisions(client: Client) -> None:
    missing = client.fetch("org/nothing", HF_TOKEN="hf_other")
    assert missing.code == 2
    assert "no model org/nothing" in missing.error
    revision = client.fetch("org/tiny", "--revision", "v9")
    assert revision.code == 2
    assert "no revision 'v9'" in revision.error
    malformed = client.fetch("a b/c")
    assert malformed.code == 2
    assert "owner/name" in malformed.error


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model.gguf": b"x"}, ["no config.json", "GGUF"]),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, ["no config.json", "LoRA"]),
        ({"config.json": b"{}", "model.onnx": b"x"}, ["no weights that can be read", "ONNX"]),
    ],
)
def test_repositories_that_cannot_serve(
    client: Client, hub: Hub, files: dict[str, bytes], expected: list[str]
) -> None:
    hub.repositories["org/other"] = Repository(files=files)
    found = client.fetch("org/other")
    assert found.code == 2
    for part in expected:
        assert part in found.error


def test_a_model_in_pytorch_files_is_fetched_where_there_are_no_safetensors(
    client: Client, hub: Hub, tmp_path: Path
) -> None:
    source = open_tensors(GOLDEN / "llama" / "hf")
    tensors = {name: source.read(name) for name in source.names}
    made = {n: d for n, d in files_of("llama").items() if "safetensors" not in n}
    (shards := tmp_path / "shards").mkdir()
    save_sharded(shards, dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2]))
    made |= {path.name: path.read_bytes() for path in shards.iterdir()}
    hub.repositories["org/old"] = Repository(files=made | {"training_args.bin": b"pickle"})
    folder = client.fetch("org/old").folder
    assert {path.name for path in folder.iterdir()} == set(made)
    assert facts.read(folder).tensors.keys() == facts.read(GOLDEN / "llama" / "hf").tensors.keys()
    hub.down = True
    assert client.fetch("org/old").folder == folder


LORA = Path(__file__).parent / "data" / "lora"


@pytest.mark.parametrize(
    ("case", "weights"),
    [("patterns-bf16", "adapter_model.safetensors"), ("rslora-f16", "adapter_model.bin")],
)
def test_an_adapter_is_fetched_alone(case: str, weights: str, client: Client, hub: Hub) -> None:
    made = {path.name: path.read_bytes() for path in (LORA / case).iterdir()}
    hub.repositories["org/lora"] = Repository(files=made | EXTRA, revisions=("main", "v2"))
    fetched = client.fetch("org/lora", "--revision", "v2", "--lora-adapter")
    assert fetched.code == 0
    [told] = fetched.records("result")
    folder = Path(told["adapter_folder"])
    assert told["adapter_revision"] == hub.repositories["org/lora"].commit == folder.name
    assert set(hub.gets()) == {"adapter_config.json", weights}
    assert open_adapter(folder).tensors.names
    hub.down = True
    assert client.fetch("org/lora", "--revision", "v2", "--lora-adapter").records("result") == [told]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config.json": b"{}", "model.safetensors": b"x"}, ["is no LoRA adapter", "a whole model"]),
        ({"adapter_config.json": b"{}"}, ["is no LoRA adapter"]),
        (
            {"adapter_config.json": b'{"peft_type": "IA3"}', "adapter_model.safetensors": b"x"},
            ["is of the kind IA3"],
        ),
    ],
)
def test_adapters_that_cannot_be_merged_are_told_at_once(
    files: dict[str, bytes], expected: list[str], client: Client, hub: Hub
) -> None:
    hub.repositories["org/lora"] = Repository(files=files)
    found = client.fetch("org/lora", "--lora-adapter")
    assert found.code == 2
    for part in expected:
        assert part in found.error


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already (gptq)"),
        ({"rope_scaling": {"type": "mrope", "factor": 4.0}}, "rope_scaling of type 'mrope'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "which writes no text"),
    ],
)
def test_what_config_json_tells_against_a_model_is_told_before_its_weights_are_fetched(
    changes: dict[str, Any], told: str, client: Client, hub: Hub
) -> None:
    files = files_of("llama_tied")
    config = json.dumps(json.loads(files["config.json"]) | changes).encode()
    hub.repositories["org/other"] = Repository(files=files | {"config.json": config})
    found = client.fetch("org/other", "--embedded-model-type", "auto")
    assert found.code == 2
    assert told in found.error
    assert set(hub.gets()) == {"config.json"}


def test_a_model_that_embeds_text_is_told_before_anything_is_fetched(client: Client, hub: Hub) -> None:
    hub.repositories["org/vectors"] = Repository(files=files_of("llama_tied") | {"modules.json": b"[]"})
    found = client.fetch("org/vectors")
    assert found.code == 2
    assert "embeds text and writes none" in found.error
    assert not hub.gets()


def test_a_model_without_a_tokenizer_that_runtimes_read_is_refused_before_its_weights(
    client: Client, hub: Hub
) -> None:
    """As vicuna-7b-v1.5 is: a SentencePiece model and no tokenizer.json."""
    files = files_of("llama_tied")
    hub.repositories["org/slow"] = Repository(files=files | {"tokenizer.model": files.pop("tokenizer.json")})
    found = client.fetch("org/slow", "--embedded-model-type", "auto")
    assert "org/slow has no tokenizer.json, only a SentencePiece tokenizer.model." in found.error
    assert not any(name.startswith("model") for name in hub.gets())


def test_an_unsupported_model_is_refused_before_its_weights(client: Client, hub: Hub) -> None:
    config = b'{"model_type": "gemma3n", "architectures": ["Gemma3nForCausalLM"]}'
    hub.repositories["org/new"] = Repository(files=files_of("llama_tied") | {"config.json": config})
    found = client.fetch("org/new", "--embedded-model-type", "auto")
    assert found.code == 2
    assert "gemma3n" in found.error
    assert "The nearest is gemma3" in found.error
    assert set(hub.gets()) == {"config.json"}
    assert client.fetch("org/new").folder.is_dir()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(client: Client, hub: Hub) -> None:
    data = os.urandom(24_000_000)  # more than the client reads at a time
    hub.repositories["org/tiny"].files["model.safetensors"] = data
    hub.drop_after["model.safetensors"] = [len(data) // 2]
    folder = client.fetch("org/tiny").folder
    assert (folder / "model.safetensors").read_bytes() == data
    ranges = [h.get("range") for _, path, h in hub.requests if path.endswith("model.safetensors")]
    assert any(r and r.startswith("bytes=1") for r in ranges)


def test_a_connection_that_keeps_breaking_is_told(client: Client, hub: Hub) -> None:
    hub.drop_after["model-00002-of-00006.safetensors"] = [1] * 100
    # The client tries five times of its own at each of ours.
    found = client.fetch_after("from engine.model import hub\nhub._ATTEMPTS = 1", "org/sharded")
    assert found.code == 1
    assert f"connection to {hub.endpoint} broke while org/sharded was fetched" in found.error
    assert "Run the same command again" in found.error
    hub.drop_after.clear()
    before = hub.gets()
    assert client.fetch("org/sharded").folder.is_dir()
    assert set(hub.gets() - before) < set(files_of("llama"))


def test_stopping_leaves_no_half_file_and_the_next_run_goes_on(client: Client, hub: Hub) -> None:
    last = "model-00006-of-00006.safetensors"
    hub.stall = {last}
    child = client.start("org/sharded")
    assert hub.stalled.wait(60)
    if sys.platform == "win32":
        child.kill()
        child.communicate(timeout=60)
    else:
        child.send_signal(signal.SIGTERM)
        assert child.stderr is not None
        assert any("Stopping" in line for line in child.stderr)
        hub.resume.set()
        child.communicate(timeout=60)
        assert child.returncode == 130
        assert list(client.home.rglob("*.incomplete")) == []
    hub.stall = set()
    before = hub.gets()
    folder = client.fetch("org/sharded").folder
    again = hub.gets() - before
    assert last in again
    assert set(again) < set(files_of("llama"))  # what was complete stayed
    assert (folder / last).read_bytes() == hub.repositories["org/sharded"].files[last]


def test_a_full_disk_is_told_before_anything_is_fetched(client: Client, hub: Hub) -> None:
    found = client.fetch_after(
        "import shutil\n"
        "real = shutil.disk_usage\n"
        "shutil.disk_usage = lambda path: type(real(path))(10**9, 10**9, 1000)\n"
        "from engine.model import hub",
        "org/tiny",
    )
    assert found.code == 1
    assert "MB free" in found.error
    assert "HF_HOME" in found.error
    assert not hub.gets()


def test_a_disk_that_becomes_full(client: Client) -> None:
    found = client.fetch_after(
        "import errno\n"
        "from engine.model import hub\n"
        "from huggingface_hub import file_download\n"
        "def full(*a, **k): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "file_download.http_get = full",
        "org/tiny",
    )
    assert found.code == 1
    assert "disk became full" in found.error


def test_a_cache_that_may_not_be_written(client: Client) -> None:
    client.home.write_text("a file where the cache should be")
    found = client.fetch("org/tiny")
    assert found.code == 1
    assert f"cannot use {client.home}" in found.error
    assert "HF_HOME" in found.error
