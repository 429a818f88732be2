"""The model library: that it is one, whole, for its device, and of the model that lies beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import hosts, wasm_lint
from engine.artifacts import native
from engine.artifacts.report import Report
from engine.catalog import TARGETS, target_of
from engine.errors import WizardError
from engine.layout import MANIFEST_NAME

LIBRARY_PATTERN = "model-*.*"
_SUFFIXES = (".wasm", ".so", ".dylib", ".dll", ".tar")
_MAGIC = {
    ".so": (b"\x7fELF", b"\xcf\xfa\xed\xfe"),  # Metal's .so is Mach-O
    ".dylib": (b"\xcf\xfa\xed\xfe",),
    ".dll": (b"MZ",),
}
_SHARED = ("model_type", "quantization")
"""What a library's metadata and mlc-chat-config.json must agree about."""


def verify(
    output: Path,
    library_name: str | None,
    config: dict[str, Any],
    report: Report,
    *,
    foreign: bool = False,
    compiled: Mapping[str, str],
) -> None:
    """Check `library_name`, or each library that is there; `config` is mlc-chat-config.json.

    It is empty where that is not right, which another check tells. Of a `foreign` library, which mlc_llm
    made, nothing but its format is known. `compiled` is what compile told of one of them, if anything
    (`folder.compiled`): it is then held to its host and its prefix, else to what its device may have.
    """
    found = [path for path in sorted(output.glob(LIBRARY_PATTERN)) if path.suffix in _SUFFIXES]
    for path in [output / library_name] if library_name else found:
        with report.guarding("library"):
            if foreign and path.suffix != ".wasm":
                report.add("library", _format_problems(path), f"{path.name}, {path.stat().st_size:,} bytes")
                continue
            problems, told = _look(path, config, compiled if compiled.get("library") == path.name else {})
            report.add("library", problems, f"{path.name}, {path.stat().st_size:,} bytes{told}")


def _format_problems(path: Path) -> list[str]:
    """Whether the file begins as no library with its suffix does."""
    with path.open("rb") as file:
        start = file.read(4)
    magic = _MAGIC.get(path.suffix)
    if magic and not start.startswith(magic):
        return [f"{path.name} begins with {start.hex(' ')}, which no {path.suffix} file does"]
    return []


def _look(path: Path, config: dict[str, Any], compiled: Mapping[str, str]) -> tuple[list[str], str]:
    """What is wrong with the library at `path`, and what it is."""
    try:
        if path.suffix == ".wasm":
            return [f"{path.name}: {finding}" for finding in wasm_lint.lint(path)], ""
        library = native.read(path)
        host = hosts.parse(compiled["host"]) if "host" in compiled else None
    except WizardError as error:
        return [error.what], ""
    target = TARGETS.get(target_of(path.name))
    if target is None:
        return [f"{path.name} is named after no device"], ""
    problems = native.problems(library, target, host=host, prefix=compiled.get("system_lib_prefix"))
    if not problems:
        problems = _differences(library.metadata, config, path.parent)
    return [f"{path.name}: {problem}" for problem in problems], f", {library}"


def _differences(metadata: dict[str, Any], config: dict[str, Any], output: Path) -> list[str]:
    """Where the library is not that of the export's configuration and weights."""
    out = [
        f"it was compiled for {key} {metadata.get(key)}, and the configuration says {config[key]}"
        for key in _SHARED
        if key in config and metadata.get(key) != config[key]
    ]
    manifest = json.loads((output / MANIFEST_NAME).read_text(encoding="utf-8"))
    stored = {
        record["name"]: (list(record["shape"]), record["dtype"])
        for shard in manifest["records"]
        for record in shard["records"]
    }
    for param in metadata["params"] if not out else ():
        if stored.get(param["name"]) != (list(param["shape"]), param["dtype"]):
            out.append(
                f"it wants {param['name']} as {param['dtype']} {param['shape']}, which the weights lack"
            )
    return out
