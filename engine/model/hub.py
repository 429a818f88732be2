"""`python -m engine.model.hub ID [--revision R]`: fetch a model of the Hub into the Hub client's cache.

A program of its own, so that the Hub client never runs in the process that shows the screen. Token,
cache, endpoint and offline mode are the client's own: HF_TOKEN or `hf auth login`, HF_HOME,
HF_ENDPOINT, HF_HUB_OFFLINE. Tells the folder and the commit as a record, by hand as JSON on stdout.
"""

import argparse
import fnmatch
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # listed by the package, not declared

from engine import disk, narrate
from engine.embedded import awq
from engine.embedded.source import decoder_of
from engine.errors import Cancelled, StageError, UsageError, WizardError
from engine.model import hub_errors, lora, nearby
from engine.model.config import normalise
from engine.model.facts import CONFIG_FILE
from engine.model.files import MODULES_FILE, embeds_text, no_tokenizer_json, read_json_object
from engine.model.lora import open_adapter
from engine.model.tensors import open_tensors, weights_file

# What the stages read, beside the weights; all at the top of the repository.
SMALL_FILES = (
    CONFIG_FILE,
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)
_TIMEOUT_S = 30
_ATTEMPTS = 3
stop = threading.Event()
"""Set once the user has stopped this program."""
_telling = threading.Lock()


class Bytes(tqdm):
    """Passes the client's count of bytes on as progress; shows no bar of its own.

    The client makes one such bar for all files together, named as here, and others that are no
    concern of ours.
    """

    fetched_before = 0
    wanted = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._counts = kwargs.get("name") == "huggingface_hub.snapshot_download" and kwargs.get("unit") == "B"
        self._seen = 0
        super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]  # tqdm has no types

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more; raises Stopped in the thread that downloads once the user has stopped."""
        if stop.is_set():
            raise hub_errors.Stopped
        if self._counts:
            with _telling:
                self._seen += int(n or 0)
                done = min(Bytes.fetched_before + self._seen, Bytes.wanted)
                narrate.progress(done, Bytes.wanted, "bytes")
        return None


def fetch(repo_id: str, revision: str = "", embedded_model_type: str = "") -> tuple[Path, str]:
    """The folder of the fetched snapshot and its commit.

    `embedded_model_type`: a model type, or "auto" for the one in config.json; where it is given, a
    model that the embedded compiler cannot follow, or that has no tokenizer.json, is refused before its
    weights are fetched.
    Raises NotAuthorizedError, UsageError or StageError in plain words. Where the Hub cannot be
    reached a complete copy in the cache serves, which is said.
    """
    return _explained(repo_id, revision, lambda: _fetch(repo_id, revision, embedded_model_type), _cached)


def fetch_adapter(repo_id: str, revision: str = "") -> tuple[Path, str]:
    """The folder of a fetched PEFT adapter and its commit.

    Raises as `fetch` does, and UsageError for an adapter that cannot be merged, before anybody waits
    for its base model.
    """
    folder, commit = _explained(repo_id, revision, lambda: _fetch_adapter(repo_id, revision), _cached_adapter)
    open_adapter(folder)
    return folder, commit


def _explained(
    repo_id: str,
    revision: str,
    fetched: Callable[[], tuple[Path, str]],
    cached: Callable[[str, str], Path | None],
) -> tuple[Path, str]:
    """What `fetched` gives; where the Hub cannot be reached, what is `cached`; failures in plain words."""
    try:
        return fetched()
    except Exception as error:
        if stop.is_set():
            raise Cancelled("Stopped while fetching.") from None
        if hub_errors.unreachable(error) and (folder := cached(repo_id, revision)):
            narrate.say(
                f"The Hub cannot be reached: using {repo_id} as fetched before, commit {folder.name}."
            )
            return folder, folder.name
        raise hub_errors.explain(error, repo_id, revision, constants.ENDPOINT) from None


def _fetch(repo_id: str, revision: str, embedded_model_type: str) -> tuple[Path, str]:
    commit, sizes = repository(repo_id, revision)
    if embedded_model_type:
        config = read_json_object(Path(hf_hub_download(repo_id, CONFIG_FILE, revision=commit)))
        normal = normalise(config)
        spec, _ = decoder_of(normal, embedded_model_type)
        awq.check(normal, spec.model_type)
        if "tokenizer.json" not in sizes:
            raise no_tokenizer_json(repo_id, has_sentencepiece="tokenizer.model" in sizes)
    names = needed(repo_id, commit, sizes)
    _check_room({n: sizes[n] for n in names if not is_cached(repo_id, n, commit)}, repo_id)
    folder = _download(repo_id, revision, {name: sizes[name] for name in names}, commit)
    return folder, folder.name


def repository(repo_id: str, revision: str) -> tuple[str, dict[str, int]]:
    """The commit of `revision` (the newest where empty), and the bytes of every file that it has.

    Raises what the client raises, and UsageError for a repository that holds no model of transformers, or
    one that writes no text.
    """
    commit, sizes = _listed(repo_id, revision)
    if CONFIG_FILE not in sizes:
        raise UsageError(
            f"{repo_id} has no {CONFIG_FILE}.",
            why=_what_it_has(list(sizes)),
            remedy="Choose the repository of the original model, in transformers' format.",
        )
    if MODULES_FILE in sizes:
        raise embeds_text(repo_id)
    return commit, sizes


def _listed(repo_id: str, revision: str) -> tuple[str, dict[str, int]]:
    """The commit of `revision`, and the bytes of every file that it has; raises what the client raises."""
    info = HfApi().model_info(repo_id, revision=revision or None, files_metadata=True, timeout=_TIMEOUT_S)
    assert info.sha is not None
    return info.sha, {file.rfilename: file.size or 0 for file in info.siblings or ()}


def needed(repo_id: str, commit: str, sizes: Mapping[str, int]) -> list[str]:
    """The names of the files that the stages read, of a repository with the files of `sizes`."""
    small = [
        name for name in sizes if any(fnmatch.fnmatchcase(name, p) for p in SMALL_FILES) and "/" not in name
    ]
    return small + _weight_files(repo_id, commit, sizes)


def _fetch_adapter(repo_id: str, revision: str) -> tuple[Path, str]:
    commit, sizes = _listed(repo_id, revision)
    weights = [name for name in lora.WEIGHT_FILES if name in sizes][:1]
    if lora.CONFIG_FILE not in sizes or not weights:
        raise UsageError(
            f"{repo_id} is no LoRA adapter: it needs {lora.CONFIG_FILE} and {lora.WEIGHT_FILES[0]}.",
            why="It holds a whole model." if CONFIG_FILE in sizes else "",
            remedy="Choose a repository that PEFT saved an adapter to, or leave model.lora_adapter out.",
        )
    names = [lora.CONFIG_FILE, *weights]
    _check_room({n: sizes[n] for n in names if not is_cached(repo_id, n, commit)}, repo_id)
    folder = _download(repo_id, revision, {name: sizes[name] for name in names}, commit)
    return folder, folder.name


def _download(repo_id: str, revision: str, sizes: dict[str, int], commit: str) -> Path:
    """The snapshot's folder, once all files of `sizes` are there; a broken connection is tried again."""
    # A name stands for itself here but for the characters that mean something in a pattern.
    patterns = [name.replace("[", "[[]") for name in sizes]
    Bytes.wanted = sum(sizes.values())
    for attempt in range(_ATTEMPTS):
        Bytes.fetched_before = sum(n for name, n in sizes.items() if is_cached(repo_id, name, commit))
        narrate.progress(Bytes.fetched_before, Bytes.wanted, "bytes")
        try:
            folder = snapshot_download(
                repo_id, revision=revision or None, allow_patterns=patterns, tqdm_class=Bytes
            )
        except Exception as error:
            if stop.is_set() or not hub_errors.unreachable(error):
                raise
            if attempt + 1 == _ATTEMPTS:
                raise hub_errors.broken(error, repo_id, constants.ENDPOINT) from error
            narrate.say("The connection broke; trying again.")
            stop.wait(1 + attempt)
            continue
        if stop.is_set():  # not every version of the client reports bytes, and so can be stopped early
            raise hub_errors.Stopped
        narrate.progress(Bytes.wanted, Bytes.wanted, "bytes")
        return Path(folder)
    raise AssertionError


def _weight_files(repo_id: str, commit: str, sizes: Mapping[str, int]) -> list[str]:
    """The files of the model's weights, with their index; copies in other formats stay where they are."""
    found = weights_file(sizes)
    if found is None:
        raise UsageError(
            f"{repo_id} has no weights that can be read.",
            why=_what_it_has(list(sizes)),
            remedy="Choose the repository of the original model, in safetensors or as pytorch_model.bin.",
        )
    if not found.endswith(".json"):
        return [found]
    index = read_json_object(Path(hf_hub_download(repo_id, found, revision=commit)))
    weight_map = index.get("weight_map")
    files = sorted({str(f) for f in weight_map.values()}) if isinstance(weight_map, dict) else []
    return [found, *(name for name in files if name in sizes)]


def _what_it_has(names: list[str]) -> str:
    if any(name.startswith("adapter_") for name in names):
        return (
            "It holds a LoRA adapter: name the model that it was trained on as model.source, and this "
            "repository as model.lora_adapter."
        )
    for suffix, what in ((".gguf", "GGUF"), (".onnx", "ONNX")):
        if any(name.endswith(suffix) for name in names):
            return f"It holds {what} files."
    return ""


def is_cached(repo_id: str, name: str, commit: str) -> bool:
    """Whether the file `name` of `commit` is in the Hub client's cache."""
    return isinstance(try_to_load_from_cache(repo_id, name, revision=commit), str)


def _check_room(missing: dict[str, int], repo_id: str) -> None:
    """Raise StageError where what is to be fetched will not fit, before it fails half way."""
    cache = Path(constants.HF_HUB_CACHE)
    needed, free = sum(missing.values()), disk.free(cache)
    if needed > free:
        raise StageError(
            f"{repo_id} takes {needed / 1e6:,.0f} MB more, and the disk of {cache} has "
            f"{free / 1e6:,.0f} MB free.",
            remedy="Make room (`hf cache` shows what is there), or set HF_HOME to a folder on another disk.",
        )


def _cached(repo_id: str, revision: str) -> Path | None:
    """The snapshot in the cache, if it is there with all its weights, each of its whole length."""
    try:
        folder = nearby.cached_snapshot(repo_id, revision)
        if folder is not None:
            open_tensors(folder)
    except WizardError:  # whatever is wrong with it, the caller tells why the Hub was not asked
        return None
    return folder


def _cached_adapter(repo_id: str, revision: str) -> Path | None:
    """The adapter in the cache, if it is there whole."""
    try:
        place = try_to_load_from_cache(repo_id, lora.CONFIG_FILE, revision=revision or None)
        folder = Path(place).parent if isinstance(place, str) else None
        if folder is not None:
            open_adapter(folder)
    except WizardError:
        return None
    return folder


def on_signal(_number: int, _frame: object) -> None:
    """Let the downloading threads end themselves: the client then removes its half files."""
    stop.set()
    os.write(2, b"Stopping.\n")  # the stream itself may be in the middle of a line


def main(argv: list[str] | None = None) -> int:
    """Fetch, tell where it is, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.model.hub", description=__doc__)
    parser.add_argument("repo_id", metavar="ID", help="model id, owner/name")
    parser.add_argument("--revision", default="", help="commit, branch or tag; the newest by default")
    parser.add_argument(
        "--embedded-model-type",
        default="",
        metavar="TYPE",
        help="refuse what the embedded compiler does not know; auto: read the type from config.json",
    )
    parser.add_argument("--lora-adapter", action="store_true", help="fetch a PEFT adapter, not a model")
    arguments = parser.parse_args(argv)
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), on_signal)
    try:
        if arguments.lora_adapter:
            folder, commit = fetch_adapter(arguments.repo_id, arguments.revision)
        else:
            folder, commit = fetch(arguments.repo_id, arguments.revision, arguments.embedded_model_type)
    except WizardError as error:
        narrate.failed(error)
        return error.exit_code
    prefix = "adapter_" if arguments.lora_adapter else ""
    narrate.result({f"{prefix}folder": str(folder), f"{prefix}revision": commit})
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a stalled connection in another thread must not hold the program
