"""A CPU export is shown to work before a run ends green, and one that does not work is caught."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from exports import LIBRARY, export, weights

from engine.artifacts import verify
from engine.events import Check


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An intact export that a test may damage."""
    return Path(shutil.copytree(export("gemma3_text", "q4f32_1", "cpu"), tmp_path / "export"))


def _generation(folder: Path) -> Check | None:
    found = [check for check in verify(folder) if check.name == "generation"]
    return found[0] if found else None


def test_an_intact_export_generates(copy: Path) -> None:
    check = _generation(copy)
    assert check is not None
    assert check.passed
    assert check.found.startswith("12 tokens")


@pytest.mark.parametrize("change", ["rope_local_base_freq", "layer_types", "query_pre_attn_scalar"])
def test_a_library_that_computes_something_else_is_caught(copy: Path, change: str) -> None:
    """The library was compiled from another configuration than the one beside it."""
    path = copy / "mlc-chat-config.json"
    config = json.loads(path.read_text())
    text = config["model_config"]["text_config"]
    if change == "layer_types":
        text["kwargs"][change] = ["full_attention"] * len(text["kwargs"][change])
    elif change == "query_pre_attn_scalar":
        text[change] *= 2
    else:
        text["kwargs"][change] *= 50
    path.write_text(json.dumps(config))
    check = _generation(copy)
    assert check is not None
    assert not check.passed
    assert "differ" in check.found


def test_a_library_of_another_model_is_caught(tmp_path: Path) -> None:
    """Of the same type and quantization, but with other parameters: known without running it."""
    copy = Path(shutil.copytree(weights("llama_tied", "q4f16_1"), tmp_path / "export"))
    shutil.copy(export("llama", "q4f16_1", "cpu") / LIBRARY["cpu"], copy)
    assert _generation(copy) is None
    [check] = [check for check in verify(copy) if check.name == "library"]
    assert not check.passed
    assert "it wants lm_head" in check.found


def test_weights_that_are_not_finite_are_caught(copy: Path) -> None:
    """A NaN scale passes every check of sizes; with its md5 made right, only running shows it."""
    import hashlib

    manifest = copy / "tensor-cache.json"
    document = json.loads(manifest.read_text())
    shard = document["records"][0]
    record = next(r for r in shard["records"] if r["name"].endswith("norm.weight"))
    data = bytearray((copy / shard["dataPath"]).read_bytes())
    data[record["byteOffset"] : record["byteOffset"] + 2] = np.array([0x7FC0], "<u2").tobytes()
    (copy / shard["dataPath"]).write_bytes(data)
    shard["md5sum"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    for name in ("tensor-cache.json", "ndarray-cache.json"):
        (copy / name).write_text(json.dumps(document))
    checks = verify(copy)
    assert not all(check.passed for check in checks)


def test_without_a_library_for_this_machine_nothing_is_claimed() -> None:
    assert _generation(weights("llama", "q4f32_1", chunk=32)) is None
