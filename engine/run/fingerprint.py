"""When a stage need not run again: what its result depends on, as one hash."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from engine.backends.base import Folders, StageCommand
from engine.errors import StageError
from engine.events import StageName

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")
# convert_weight reads the architecture and the weights; tokenizer and template are not its business,
# nor are weights that of gen_config.
_WEIGHTS = tuple(f"*{suffix}" for suffix in WEIGHT_SUFFIXES)
_CONVERT_READS = ("config.json", "adapter_config.json", "*.index.json", *_WEIGHTS)
_GEN_CONFIG_READS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")


def fingerprint(commands: Sequence[StageCommand], folders: Folders) -> str:
    """A hash of a stage's arguments and inputs, and of the versions and sources of what works on them.

    The place of the export and of the interpreter are left out: neither changes a result. Weights
    are identified by path, size and mtime, as reading them takes as long as converting them; other
    files by content.
    """
    output = str(folders.output)
    identity = [
        {
            "stage": command.stage,
            "arguments": [word.replace(output, "OUT") for word in command.identity or command.argv[1:]],
            "inputs": [_identity(path) for path in _files(command.stage, command.inputs)],
            "packages": {
                **versions(command.packages),
                **command.versions,
                **(command.asked() if command.asked else {}),
            },
            "sources": _own_sources(),
        }
        for command in commands
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _files(stage: StageName, inputs: Iterable[Path]) -> list[Path]:
    patterns = {"convert_weight": _CONVERT_READS, "gen_config": _GEN_CONFIG_READS}.get(stage, ("*",))
    found: set[Path] = set()
    for path in inputs:
        if path.is_dir():
            found.update(file for pattern in patterns for file in path.glob(pattern) if file.is_file())
        else:
            found.add(path)
    return sorted(found)


def _identity(path: Path) -> tuple[str, int, str]:
    try:
        status = path.stat()
        if path.suffix in WEIGHT_SUFFIXES:
            return str(path), status.st_size, str(status.st_mtime_ns)
        return path.name, status.st_size, sha256(path)
    except OSError as error:
        raise StageError(
            f"{path} cannot be read: {error.strerror or error}.",
            remedy="Check that it is there and that you may read it.",
        ) from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each distribution."""
    return {name: _version(name) for name in packages}


@cache
def _own_sources() -> str:
    """A hash of the code behind the stages; within one release it only changes for its developers."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    single = [root / f"{name}.py" for name in ("catalog", "cuda", "hosts", "layout", "module_blob")]
    files = [*single, *(root / "model").rglob("*"), *(root / "embedded").rglob("*")]
    for path in sorted(files):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
