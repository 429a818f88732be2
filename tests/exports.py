"""Real exports of the golden models, each made once in a test process."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from conftest import GOLDEN

from engine.catalog import QUANTIZATIONS, host_library_suffix
from engine.embedded.__main__ import main
from engine.embedded.families.registry import FAMILIES
from engine.embedded.spec import DecoderSpec, Parameter

CONTEXT, CHUNK = 256, 64
LIBRARY = {"cpu": f"model-cpu{host_library_suffix()}", "webgpu": "model-webgpu.wasm"}


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mlc-wizard-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _stage(*arguments: object) -> None:
    code = main([str(a) for a in arguments])
    assert code == 0, arguments


@cache
def source(model: str, transformers: int = 4) -> Path:
    """The Hugging Face folder of a golden model, with the config of that version of transformers."""
    hf = GOLDEN / model / "hf"
    if transformers == 4:
        return hf
    folder = _folder() / f"{model}-transformers{transformers}"
    shutil.copytree(hf, folder)
    shutil.copyfile(GOLDEN / model / f"config.transformers{transformers}.json", folder / "config.json")
    return folder


@cache
def weights(model: str, quantization: str, transformers: int = 4, chunk: int = CHUNK) -> Path:
    """An export without a library."""
    folder = _folder() / f"{model}-{quantization}-{transformers}-{chunk}"
    hf = source(model, transformers)
    _stage("convert_weight", hf, "--quantization", quantization, "-o", folder)
    sizes = ("--context-window-size", CONTEXT, "--prefill-chunk-size", chunk)
    _stage("gen_config", hf, "--quantization", quantization, *sizes, "-o", folder)
    return folder


@cache
def export(model: str, quantization: str, device: str, transformers: int = 4, chunk: int = CHUNK) -> Path:
    """An export with a library for `device`."""
    folder = weights(model, quantization, transformers, chunk)
    compiled(folder, folder / LIBRARY[device], device)
    return folder


def compiled(folder: Path, library: Path, device: str, overrides: str = "") -> None:
    """Write a `library` for the export in `folder`, with `overrides` of its configuration."""
    _stage("compile", folder, "--device", device, "--overrides", overrides, "-o", library)


def decoder(folder: Path) -> tuple[DecoderSpec, tuple[Parameter, ...]]:
    """The decoder of an export, from its mlc-chat-config.json alone."""
    config = json.loads((folder / "mlc-chat-config.json").read_text(encoding="utf-8"))
    family = FAMILIES[config["model_type"]]
    spec = family.spec(config["model_config"])
    return spec, family.parameters(spec)


__all__ = [
    "CHUNK",
    "CONTEXT",
    "LIBRARY",
    "QUANTIZATIONS",
    "compiled",
    "decoder",
    "export",
    "source",
    "weights",
]
