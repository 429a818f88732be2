"""`python -m engine.model.look ID [--revision R]`: what a Hub model is, before its weights are fetched.

A program of its own, as `engine.model.hub` is. config.json and what else is small goes to the Hub
client's cache; of the weights only the headers are read, by range requests. Tells, as JSON lines on
stdout by hand and as records under a front end:

{"look": {"commit": str, "folder": str, "download_bytes": int, "sizes": {file: bytes}}}
{"headers": {"tensors": [[name, file, dtype, [shape], offset, bytes], ...]}}  several, in source order
{"complete": {"tensors": int}}  how many; none where the weights have no headers to read
{"error": {"what": str, "why": str, "remedy": str, "exit_code": int, "kind": str}}
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from huggingface_hub import HfApi, constants, errors, get_session, hf_hub_download

from engine import narrate
from engine.errors import Cancelled, HubUnreachable, UsageError, WizardError
from engine.model import hub, hub_errors
from engine.model.facts import CHAT_TEMPLATE_FILES, CONFIG_FILE
from engine.model.files import read_json_object
from engine.model.safetensors_file import header_entry
from engine.model.tensor_info import TensorInfo
from engine.model.tensors import INDEX_FILE, SINGLE_FILE

LIMIT_S = 30.0
"""How long a look may take in all."""
_AT_ONCE = 8  # headers asked for together
_CHUNK = 100  # tensors a record
_GRACE_S = 0.5  # for what was under way when the end came
_ELSEWHERE = "Choose another model or revision, or tell its owner."
_RANGE_LIMIT = 1 << 25  # bytes; the client asks for 100 kB, and for no header above 25 MB

Tell = Callable[[str, Mapping[str, Any]], None]


class _WholeFile(Exception):
    """The server answers a range request with all of a file."""


def look(repo_id: str, revision: str, tell: Tell) -> None:
    """Tell what `repo_id` is, as far as is known at each time; raises what the client raises."""
    commit, sizes = hub.repository(repo_id, revision)
    names = hub.needed(repo_id, commit, sizes)
    # tokenizer_config.json may be large, and is wanted for a chat template that stands nowhere else.
    also = () if any(name in sizes for name in CHAT_TEMPLATE_FILES) else ("tokenizer_config.json",)
    folder = Path()
    for name in (CONFIG_FILE, *also):
        if name in sizes:
            place = hf_hub_download(repo_id, name, revision=commit, tqdm_class=hub.Bytes)
            folder = Path(place).parent
    missing = sum(sizes[name] for name in names if not hub.is_cached(repo_id, name, commit))
    told = {name: sizes[name] for name in names}
    tell("look", {"commit": commit, "folder": str(folder), "download_bytes": missing, "sizes": told})
    files = [name for name in names if name.endswith(".safetensors")]
    try:
        headers = _headers(repo_id, commit, {name: sizes[name] for name in files})
    except _WholeFile:
        headers = {}
    infos = _in_order(headers, folder)
    for start in range(0, len(infos), _CHUNK):
        some = infos[start : start + _CHUNK]
        tell(
            "headers",
            {"tensors": [[i.name, str(i.file), i.dtype, i.shape, i.offset, i.nbytes] for i in some]},
        )
    tell("complete", {"tensors": len(infos)})


def _headers(repo_id: str, commit: str, sizes: Mapping[str, int]) -> dict[str, list[TensorInfo]]:
    """What each file of `sizes` holds, in the order of its data."""
    get_session().event_hooks["response"].append(_refuse_whole_files)

    def header(file: str) -> list[TensorInfo]:
        if hub.stop.is_set():
            raise hub_errors.Stopped
        try:
            found = HfApi().parse_safetensors_file_metadata(repo_id, file, revision=commit).tensors
        except (errors.SafetensorsParsingError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{file} of {repo_id} is no valid safetensors file.",
                why=str(error).strip().partition("\n")[0],
                remedy=_ELSEWHERE,
            ) from error
        length = sizes[file]
        # The data are the end of the file.
        base = length - max((t.data_offsets[1] for t in found.values()), default=0)
        if base < 8:
            raise UsageError(
                f"{file} of {repo_id} is truncated: its header describes {length - base} bytes of tensors, "
                f"the whole file has {length}.",
                remedy=_ELSEWHERE,
            )
        infos = [
            header_entry(
                Path(file),
                base,
                name,
                {"dtype": t.dtype, "shape": t.shape, "data_offsets": list(t.data_offsets)},
            )
            for name, t in found.items()
        ]
        return sorted(infos, key=lambda info: (info.offset, info.nbytes))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(sizes, pool.map(header, sizes), strict=True))


def _refuse_whole_files(response: Any) -> None:
    """Before its body is read: a mirror without ranges would send gigabytes, into memory."""
    length = int(response.headers.get("content-length") or 0)
    if "range" in response.request.headers and response.status_code == 200 and length > _RANGE_LIMIT:
        raise _WholeFile


def _in_order(headers: Mapping[str, list[TensorInfo]], folder: Path) -> list[TensorInfo]:
    """The tensors as the source lists them: by the index's weight_map, or by offset in a single file."""
    by_place = {(file, info.name): info for file, infos in headers.items() for info in infos}
    if not headers or SINGLE_FILE in headers or not (folder / INDEX_FILE).is_file():
        return list(by_place.values())
    weight_map = read_json_object(folder / INDEX_FILE)["weight_map"]
    if lost := next((item for item in weight_map.items() if item[::-1] not in by_place), None):
        raise UsageError(
            f"{INDEX_FILE} says tensor {lost[0]} is in {lost[1]}, which does not hold it.",
            why="Index and weight files come from different versions of the model.",
            remedy=_ELSEWHERE,
        )
    return [by_place[file, name] for name, file in weight_map.items()]


def _tell(kind: str, body: Mapping[str, Any]) -> None:
    if narrate.records():
        narrate.record(kind, body)
    else:
        sys.stdout.write(json.dumps({kind: body}) + "\n")
        sys.stdout.flush()


def _within(limit: float, work: Callable[[], None]) -> BaseException | None:
    """What `work` raised: Stopped where the user stopped it, TimeoutError after `limit` seconds."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    # A connection without an answer holds the thread that waits for it, never the program.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + limit
    while thread.is_alive() and not hub.stop.is_set() and time.monotonic() < deadline:
        thread.join(0.05)
    stopped = hub.stop.is_set()
    if thread.is_alive():
        hub.stop.set()
        thread.join(_GRACE_S)
        _remove_half_files()
        return hub_errors.Stopped() if stopped else TimeoutError()
    return raised[0] if raised else None


def _remove_half_files() -> None:
    """Remove what this process was writing to the cache; the client does so only where it ends in order."""
    for file in psutil.Process().open_files():
        if file.path.endswith(".incomplete"):
            with contextlib.suppress(OSError):  # Windows keeps a file that is open; the client ignores it
                Path(file.path).unlink()


def _explained(error: BaseException, repo_id: str, revision: str, limit: float) -> WizardError:
    if isinstance(error, hub_errors.Stopped):
        return Cancelled("Stopped while looking.")
    if isinstance(error, TimeoutError) and not error.args:
        return HubUnreachable(
            f"{constants.ENDPOINT} did not tell what {repo_id} is within {limit:g} seconds.",
            remedy="Try again, or check the network and proxy settings (HTTPS_PROXY).",
        )
    return hub_errors.explain(error, repo_id, revision, constants.ENDPOINT)


def main(argv: list[str] | None = None) -> int:
    """Look, tell, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.model.look", description=__doc__)
    parser.add_argument("repo_id", metavar="ID", help="model id, owner/name")
    parser.add_argument("--revision", default="", help="commit, branch or tag; the newest by default")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS", help="for all of it")
    arguments = parser.parse_args(argv)
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), hub.on_signal)
    repo_id, revision, limit = arguments.repo_id, arguments.revision, arguments.limit
    error = _within(limit, lambda: look(repo_id, revision, _tell))
    if error is None:
        return 0
    told = _explained(error, repo_id, revision, limit)
    narrate.failed(told)
    if not narrate.records():
        _tell("error", narrate.error_record(told))
    return told.exit_code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a connection without an answer must not hold the program
