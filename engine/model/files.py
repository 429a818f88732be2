"""Reading the files of a model folder, and what is said where one is missing, cut short or something else."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import StageError, UsageError

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
LFS_MAGIC = b"version https://git-lfs"
DOWNLOAD = "Download the model again, for example with `hf download`."


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Raise StageError naming `path` for any OSError within: not allowed, a bad disk, too long a name."""
    try:
        yield
    except OSError as error:
        raise StageError(
            f"{path} cannot be read: {error.strerror or error}.",
            remedy="Check that the file is there, that you may read it and that its disk is healthy.",
        ) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; UsageError naming the file and the place where it is something else."""
    with disk_errors_told(path):
        data = path.read_bytes()
    if data.startswith(LFS_MAGIC):
        raise lfs_pointer(path)
    try:
        found = json.loads(data)
        if _SURROGATE.search(data):  # halves without their other are no text, and nothing can write them
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}", remedy=DOWNLOAD) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object.", remedy=DOWNLOAD)
    return found


def some(names: list[str], limit: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def no_tokenizer_json(model: str, *, has_sentencepiece: bool) -> UsageError:
    """What is said of a model (a folder or a Hub id) without tokenizer.json."""
    return UsageError(
        f"{model} has no tokenizer.json"
        + (", only a SentencePiece tokenizer.model." if has_sentencepiece else "."),
        why="The runtimes tokenize with tokenizer.json, which holds the special tokens too.",
        remedy="With transformers installed: AutoTokenizer.from_pretrained(MODEL, use_fast=True)"
        ".save_pretrained(FOLDER) writes it, into a copy of the model's folder."
        if has_sentencepiece
        else "Download tokenizer.json from the model's page into the folder.",
    )


MODULES_FILE = "modules.json"
"""What sentence-transformers says of a model's parts; a model that writes has none."""


def embeds_text(model: str) -> UsageError:
    """What is said of a model (a folder or a Hub id) that is made for embeddings."""
    return UsageError(
        f"{model} is a model of sentence-transformers ({MODULES_FILE}): it embeds text and writes none.",
        why="It was trained for vectors, whatever its decoder was before: in a chat it would write nonsense.",
        remedy="Choose the chat model that it was made from, or another one.",
    )


def truncated(path: Path, expected: int, found: int) -> UsageError:
    """What is said of a file that ends too early."""
    return UsageError(
        f"{path} is truncated: {expected} bytes expected, {found} found.",
        why="The download or the copy of this file did not finish.",
        remedy=DOWNLOAD,
    )


def lfs_pointer(path: Path) -> UsageError:
    """What is said of a file that Git LFS did not fetch."""
    return UsageError(
        f"{path} is a Git LFS pointer, not the file itself.",
        why="The repository was cloned without Git LFS.",
        remedy="Run `git lfs pull` in that folder, or fetch the model with `hf download`.",
    )
