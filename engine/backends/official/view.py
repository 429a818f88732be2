"""A model folder as mlc_llm is shown it, so that it writes nothing into the real one.

Asked for safetensors, mlc_llm looks for model.safetensors.index.json and, where there is none, loads all
weights and writes one beside them (`_check_safetensor` in its support/auto_weight.py): into the Hub's cache,
or not at all where the folder is read-only. It joins the folder and each file's name, and an absolute
name stands for itself; so a folder with an index of absolute names shows it the weights where they are.
"""

import json
import shutil
from pathlib import Path

from engine.disk import disk_error
from engine.model.tensors import open_tensors

INDEX = "model.safetensors.index.json"
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
"""What transformers reads beside the weights, when mlc_llm has it merge an adapter."""


def show(source: Path, view: Path) -> None:
    """Fill the folder `view` with an index of the safetensors files in `source`, and copies of small files.

    Tensors keep the order of the source, which is that of the shards. Raises a WizardError where the
    weights in `source` are not whole, and where `view` cannot be written.
    """
    tensors = open_tensors(source, "huggingface-safetensor")
    places = {name: str(tensors.info(name).file.absolute()) for name in tensors.names}
    size = sum(tensors.info(name).nbytes for name in tensors.names)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    try:
        view.mkdir(parents=True, exist_ok=True)
        for path in (path for pattern in _SMALL for path in source.glob(pattern)):
            shutil.copyfile(path, view / path.name)
        (view / INDEX).write_text(json.dumps(index), encoding="utf-8")
    except OSError as error:
        raise disk_error(error, view) from None


def remove(view: Path) -> None:
    """Take the view away: it is no part of what the stage has made."""
    shutil.rmtree(view, ignore_errors=True)
