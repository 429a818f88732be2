"""What tests of the convert_weight stage share."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import GOLDEN
from quantization_reference import BF16
from safetensors.numpy import load_file, save_file

from engine.model.tensors import SINGLE_FILE

Tensors = dict[str, np.ndarray[Any, Any]]


def check_whole(output: Path) -> dict[str, Any]:
    """The manifest in `output`, after checking that it names exactly the shards there, and whole ones."""
    manifest: dict[str, Any] = json.loads((output / "tensor-cache.json").read_text())
    for shard in manifest["records"]:
        data = (output / shard["dataPath"]).read_bytes()
        assert hashlib.md5(data).hexdigest() == shard["md5sum"]
        assert len(data) == shard["nbytes"]
    named = {shard["dataPath"] for shard in manifest["records"]}
    assert {path.name for path in output.glob("*.bin")} == named
    return manifest


def silent(*_: object) -> None:
    """No narration of progress."""


class Changed:
    """Makes copies of the golden llama_tied model in `home`, their tensors and config changed."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(
        self, change: Callable[[Tensors], object] | None = None, name: str = "model", **config: object
    ) -> Path:
        folder = self.home / name
        shutil.copytree(GOLDEN / "llama_tied" / "hf", folder)
        if change is not None:
            tensors = load_file(folder / SINGLE_FILE)
            change(tensors)
            save_file(tensors, folder / SINGLE_FILE)
        found = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(found | config))
        return folder


def read(output: Path) -> dict[str, tuple[str, np.ndarray[Any, Any]]]:
    """Every stored tensor with its dtype's name, as it lies on disk."""
    found = {}
    for shard in json.loads((output / "tensor-cache.json").read_text())["records"]:
        data = (output / shard["dataPath"]).read_bytes()
        for r in shard["records"]:
            dtype = {"uint32": np.dtype("<u4"), "float16": np.dtype("<f2")}.get(r["dtype"], BF16)
            raw = data[r["byteOffset"] : r["byteOffset"] + r["nbytes"]]
            found[r["name"]] = r["dtype"], np.frombuffer(raw, dtype).reshape(r["shape"])
    return found
