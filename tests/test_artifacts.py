"""engine.artifacts: a good export passes, and each way to damage one is caught by its own check."""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN

from engine import process
from engine.artifacts import verify
from engine.catalog import host_library_suffix
from engine.embedded import convert_weight, gen_config
from engine.errors import UsageError
from engine.events import Check

SHARD = "params_shard_0.bin"
CONFIG = "mlc-chat-config.json"
MANIFEST = "tensor-cache.json"


def make_export(output: Path, model: str, quantization: str) -> Path:
    source = GOLDEN / model / "hf"
    convert_weight.convert(source, quantization, output)
    parser = argparse.ArgumentParser()
    gen_config.add_arguments(parser)
    sizes = ["--context-window-size", "256", "--prefill-chunk-size", "64"]
    argv = [str(source), "--quantization", quantization, *sizes, "-o", str(output)]
    gen_config.run(parser.parse_args(argv))
    return output


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("pristine") / "export", "gemma3_text", "q4f32_1")


@pytest.fixture
def export(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "export"))


def a_layer_less(config: dict[str, Any]) -> None:
    text = config["model_config"]["text_config"]
    text["num_hidden_layers"] -= 1
    text["kwargs"]["layer_types"].pop()


def failed(output: Path, library: str | None = None) -> dict[str, str]:
    return {check.name: check.found for check in verify(output, library) if not check.passed}


def edit(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def edit_manifest(output: Path, change: Callable[[Any], object]) -> None:
    for name in (MANIFEST, "ndarray-cache.json"):
        edit(output / name, change)


def records(manifest: Any) -> list[Any]:
    return list(manifest["records"][0]["records"])


@pytest.mark.parametrize("quantization", ["q0f16", "q0f32", "q4f16_1", "q4f32_1"])
@pytest.mark.parametrize("model", ["gemma3_text", "llama", "llama_tied", "llama3_rope"])
def test_a_good_export_passes_every_check(tmp_path: Path, model: str, quantization: str) -> None:
    checks = verify(make_export(tmp_path / "out", model, quantization))
    assert [check for check in checks if not check.passed] == []
    assert [check.name for check in checks] == [
        *("configuration", "window", "tokenizer files", "stop tokens", "special tokens", "vocabulary"),
        *("manifest", "tensor offsets", "shard files", "shard contents", "finite weights", "parameters"),
        "leftovers",
    ]


def test_no_folder_and_no_export(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        verify(tmp_path / "absent")
    with pytest.raises(UsageError, match="holds no export"):
        verify(tmp_path)


def corrupt_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def put_infinity(output: Path) -> None:
    """A bfloat16 infinity in a norm, the checksum made right again."""
    manifest = json.loads((output / MANIFEST).read_text())
    record = next(r for r in records(manifest) if r["name"].endswith("input_layernorm.weight"))
    data = bytearray((output / SHARD).read_bytes())
    data[record["byteOffset"] + 2 : record["byteOffset"] + 4] = b"\x80\x7f"
    (output / SHARD).write_bytes(data)
    digest = hashlib.md5(data).hexdigest()
    edit_manifest(output, lambda m: m["records"][0].update(md5sum=digest))


def swap_names(manifest: Any) -> None:
    first, second = records(manifest)[:2]
    first["name"], second["name"] = second["name"], first["name"]


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a flipped bit": (lambda o: corrupt_byte(o / SHARD), "shard contents", "params_shard_0.bin has the MD5"),
    "a truncated shard": (
        lambda o: (o / SHARD).write_bytes((o / SHARD).read_bytes()[:-4]),
        "shard files",
        "params_shard_0.bin has 187772 bytes, not 187776",
    ),
    "a missing shard": (lambda o: (o / SHARD).unlink(), "shard files", "params_shard_0.bin is missing"),
    "an LFS pointer for a shard": (
        lambda o: (o / SHARD).write_text("version https://git-lfs.github.com/spec/v1\n"),
        "shard files",
        "params_shard_0.bin has 43 bytes",
    ),
    "no manifest": (lambda o: (o / MANIFEST).unlink(), "manifest", "tensor-cache.json cannot be read"),
    "half a manifest": (
        lambda o: (o / MANIFEST).write_text((o / MANIFEST).read_text()[:500]),
        "manifest",
        "malformed",
    ),
    "a manifest of another form": (
        lambda o: (o / MANIFEST).write_text('{"records": [{"nbytes": 4}]}'),
        "manifest",
        "malformed: has no key 'dataPath'",
    ),
    "a path out of the folder": (
        lambda o: edit_manifest(o, lambda m: m["records"][0].update(dataPath="../secret.bin")),
        "manifest",
        "no plain file name",
    ),
    "a name that no file can have": (
        lambda o: edit_manifest(o, lambda m: m["records"][0].update(dataPath="a" * 5000)),
        "shard files",
        "is missing",
    ),
    "a manifest without end": (
        lambda o: (o / MANIFEST).write_text("[" * 100_000),
        "manifest",
        "malformed: maximum recursion depth exceeded",
    ),
    "two manifests that differ": (
        lambda o: edit(o / "ndarray-cache.json", lambda m: m["records"].clear()),
        "manifest",
        "ndarray-cache.json says something else",
    ),
    "a record twice": (
        lambda o: edit_manifest(o, lambda m: m["records"][0]["records"].append(records(m)[0])),
        "manifest",
        "is there twice",
    ),
    "an offset out of bounds": (
        lambda o: edit_manifest(o, lambda m: records(m)[-1].update(byteOffset=187700)),
        "tensor offsets",
        "ends at byte",
    ),
    "overlapping tensors": (
        lambda o: edit_manifest(o, lambda m: records(m)[1].update(byteOffset=0)),
        "tensor offsets",
        "overlaps",
    ),
    "a size that is not the shape's": (
        lambda o: edit_manifest(o, lambda m: records(m)[2].update(nbytes=64)),
        "tensor offsets",
        "takes 128 bytes, not 64",
    ),
    "a missing tensor": (
        lambda o: edit_manifest(o, lambda m: m["records"][0]["records"].pop()),
        "parameters",
        "language_model.model.norm.weight is missing",
    ),
    "a tensor too many": (
        lambda o: edit_manifest(o, lambda m: records(m)[-1].update(name="lm_head.weight")),
        "parameters",
        "lm_head.weight belongs to no parameter",
    ),
    "swapped tensors": (lambda o: edit_manifest(o, swap_names), "parameters", "not ["),
    "another dtype": (
        lambda o: edit_manifest(o, lambda m: records(m)[2].update(dtype="float16")),
        "parameters",
        "is float16, not float32",
    ),
    "infinity in a norm": (put_infinity, "finite weights", "input_layernorm.weight holds NaN or infinity"),
    "no configuration": (lambda o: (o / CONFIG).unlink(), "configuration", "cannot be read"),
    "a configuration that is a list": (lambda o: (o / CONFIG).write_text("[]"), "configuration", "malformed"),
    "a field of the wrong type": (
        lambda o: edit(o / CONFIG, lambda c: c.update(sliding_window_size=None)),
        "configuration",
        "sliding_window_size is None",
    ),
    "both windows": (
        lambda o: edit(o / CONFIG, lambda c: c.update(sliding_window_size=16)),
        "window",
        "exactly one may be set",
    ),
    "no window": (
        lambda o: edit(o / CONFIG, lambda c: c.update(context_window_size=-1)),
        "window",
        "exactly one may be set",
    ),
    "a prefill chunk above the window": (
        lambda o: edit(o / CONFIG, lambda c: c.update(prefill_chunk_size=512)),
        "window",
        "prefill_chunk_size = 512 with a window of 256",
    ),
    "another quantization": (
        lambda o: edit(o / CONFIG, lambda c: c.update(quantization="q0f16")),
        "parameters",
        "is missing",
    ),
    "another model": (
        lambda o: edit(o / CONFIG, lambda c: c.update(model_type="llama")),
        "parameters",
        "malformed",
    ),
    "a layer less": (
        lambda o: edit(o / CONFIG, a_layer_less),
        "parameters",
        "layers.6.",
    ),
    "no tokenizer": (
        lambda o: (o / "tokenizer.json").unlink(),
        "tokenizer files",
        "tokenizer.json is missing",
    ),
    "half a tokenizer": (
        lambda o: (o / "tokenizer.json").write_text("{"),
        "tokenizer files",
        "tokenizer.json cannot be loaded",
    ),
    "a tokenizer that is not listed": (
        lambda o: edit(o / CONFIG, lambda c: c.update(tokenizer_files=["tokenizer_config.json"])),
        "tokenizer files",
        "neither tokenizer.json nor tokenizer.model is listed",
    ),
    "a stop id that is no token": (
        lambda o: edit(o / CONFIG, lambda c: c["conv_template"].update(stop_token_ids=[2, 380])),
        "stop tokens",
        "380 is no token",
    ),
    "no way to stop": (
        lambda o: edit(o / CONFIG, lambda c: c["conv_template"].update(stop_token_ids=[], stop_str=[])),
        "stop tokens",
        "no answer would end",
    ),
    "a prefix id out of range": (
        lambda o: edit(o / CONFIG, lambda c: c["conv_template"].update(system_prefix_token_ids=[9999])),
        "special tokens",
        "9999 is no token",
    ),
    "a vocabulary smaller than the tokenizer": (
        lambda o: edit(o / CONFIG, lambda c: c.update(vocab_size=100)),
        "vocabulary",
        "token id 375 has no place in vocab_size = 100",
    ),
    "a vocabulary unlike the weights": (
        lambda o: edit(o / CONFIG, lambda c: c.update(vocab_size=400)),
        "parameters",
        "384 rows of embeddings for vocab_size = 400",
    ),
    "a stale shard": (
        lambda o: (o / "params_shard_7.bin").write_bytes(b"old"),
        "leftovers",
        "params_shard_7.bin belongs to no export",
    ),
    "a half download": (
        lambda o: (o / "tokenizer.json.incomplete").write_bytes(b""),
        "leftovers",
        "tokenizer.json.incomplete",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_caught(export: Path, damage: str) -> None:
    do, check, found = DAMAGE[damage]
    do(export)
    problems = failed(export)
    assert check in problems
    assert found in problems[check]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is not a WebAssembly module"),
        (b"<!DOCTYPE html>", "is not a WebAssembly module"),
        (b"\0asm\x01\0\0\0\x02\x7f", "damaged"),
        # One import, a.b, a function.
        (b"\0asm\x01\0\0\0\x02\x07\x01\x01a\x01b\x00\x00", "which WebLLM does not supply"),
    ],
)
def test_a_library_that_webllm_would_refuse(export: Path, data: bytes, found: str) -> None:
    (export / "model-webgpu.wasm").write_bytes(data)
    assert found in failed(export)["library"]


def test_a_missing_library(export: Path) -> None:
    assert "cannot be read" in failed(export, "model-webgpu.wasm")["library"]


def test_a_native_library_that_holds_no_model(export: Path) -> None:
    # Any shared library of this machine has the format of one.
    library = export / f"model-cpu{host_library_suffix()}"
    whole = Path(np._core._multiarray_umath.__file__).read_bytes()
    library.write_bytes(whole)
    assert "0 symbols that end in __tvm_ffi__library_bin" in failed(export, library.name)["library"]
    library.write_bytes(whole[: len(whole) // 2])
    assert "library" in failed(export, library.name)
    library.write_bytes(b"no library at all")
    assert "begins with" in failed(export, library.name)["library"]


def test_another_library_is_a_leftover(export: Path) -> None:
    (export / "model-cuda.so").write_bytes(b"\x7fELF" + bytes(64))
    assert "model-cuda.so" in failed(export, "model-webgpu.wasm")["leftovers"]


def test_the_receipt_finds_what_no_manifest_covers(export: Path) -> None:
    files = [
        {"name": p.name, "size": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()}
        for p in sorted(export.iterdir())
    ]
    (export / "export-receipt.json").write_text(json.dumps({"files": files}))
    assert failed(export) == {}
    (export / "tokenizer_config.json").write_text("{}")
    assert failed(export) == {"receipt": "tokenizer_config.json has changed since"}
    (export / "export-receipt.json").write_text("{")
    assert "malformed" in failed(export)["receipt"]


def test_as_a_program(export: Path) -> None:
    def run(**env: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "engine.artifacts", str(export)]
        return subprocess.run(
            command, env=process.child_environment(env), capture_output=True, text=True, check=False
        )

    assert run(MLC_WIZARD_RECORDS="0").returncode == 0
    corrupt_byte(export / SHARD)
    by_hand = run(MLC_WIZARD_RECORDS="0")
    assert by_hand.returncode == 1
    assert "FAILED shard contents" in by_hand.stderr
    under_the_runner = run()
    assert under_the_runner.returncode == 0
    # Not splitlines: the record separator counts as a line end there.
    told = under_the_runner.stderr.split("\n")
    bodies = [json.loads(line[1:]) for line in told if line.startswith("\x1e")]
    checks = [Check(**body["check"]) for body in bodies if "check" in body]
    assert [check.name for check in checks if not check.passed] == ["shard contents"]
