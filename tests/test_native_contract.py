"""A library that lacks something that MLC's engine asks for is named with what it lacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tvm
from exports import LIBRARY, export
from tvm import relax

from engine.artifacts import native_contract, verify
from engine.artifacts.report import Report
from engine.embedded.native.shared import linker
from engine.events import Check
from engine.hosts import here

CONFIG = {"model_type": "llama", "quantization": "q4f16_1"}
METADATA: dict[str, Any] = {
    **CONFIG,
    "context_window_size": 256,
    "sliding_window_size": -1,
    "attention_sink_size": -1,
    "prefill_chunk_size": 64,
    "max_batch_size": 4,
    "tensor_parallel_shards": 1,
    "kv_cache": {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
    },
    "params": [{"name": "w", "shape": [1, "vocab_size"], "dtype": "float16", "preprocs": []}],
    "memory_usage": {"prefill": 4096},
}


@pytest.fixture
def library(tmp_path: Path) -> Callable[..., Path]:
    """Compiles a library with functions of these names, which do nothing, and this metadata."""

    def build(functions: tuple[str, ...], metadata: str) -> Path:
        builder = relax.BlockBuilder()
        for name in functions:
            with builder.function(name, []):
                builder.emit_func_output(relax.Tuple([]))
        with builder.function("_metadata", []):
            builder.emit_func_output(tvm.ir.StringImm(metadata))
        out = tmp_path / LIBRARY["cpu"]
        target = tvm.target.Target({"kind": "llvm"})
        relax.build(builder.get(), target=target).export_library(str(out), fcompile=linker(here()))
        return out

    return build


def _check(path: Path, device: str = "cpu") -> Check:
    report = Report()
    passed = native_contract.verify(path, device, CONFIG, report)
    (check,) = report.checks
    assert check.passed == passed
    assert check.name == "native contract"
    return check


def test_an_export_for_this_machine_keeps_to_it() -> None:
    folder = export("llama", "q4f16_1", "cpu")
    checks = {check.name: check for check in verify(folder)}
    assert checks["native contract"].passed
    assert checks["native contract"].found.startswith("11 functions")


def test_the_functions_of_a_gpu_are_in_a_library_too() -> None:
    """The kernels of our CPU libraries are those of the others, so what those hold is known from them."""
    folder = export("llama", "q4f16_1", "cpu")
    assert _check(folder / LIBRARY["cpu"], "cuda").passed


def test_another_quantization_is_named() -> None:
    check = _check(export("llama", "q0f32", "cpu") / LIBRARY["cpu"])
    assert not check.passed
    assert check.found == f"{LIBRARY['cpu']}: it was compiled for q0f32, not for the export's q4f16_1"


def test_a_library_for_webllm_alone_is_not_enough(library: Callable[..., Path]) -> None:
    functions = tuple(n for n in native_contract.FUNCTIONS if n not in ("batch_prefill", "batch_decode"))
    check = _check(library(functions, json.dumps(METADATA)))
    name = LIBRARY["cpu"]
    assert check.found == f"{name}: batch_prefill is missing; {name}: batch_decode is missing"


def test_a_device_that_samples_needs_more(library: Callable[..., Path]) -> None:
    path = library(native_contract.FUNCTIONS, json.dumps(METADATA))
    assert _check(path).passed
    check = _check(path, "cuda")
    assert "multinomial_from_uniform is missing" in check.found
    assert "and 2 more" in check.found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "its _metadata is no object"),
        ("{", "cannot be loaded"),
        ("{}", "its _metadata has no model_type"),
    ],
)
def test_metadata_that_is_none(library: Callable[..., Path], text: str, found: str) -> None:
    assert found in _check(library(native_contract.FUNCTIONS, text)).found


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / LIBRARY["cpu"]
    path.write_bytes(b"\x7fELF, but no more")
    assert f"{path.name} cannot be loaded" in _check(path).found


def test_whole_metadata_has_no_problem() -> None:
    assert native_contract.metadata_problems(METADATA) == []


@pytest.mark.parametrize("key", sorted(METADATA))
def test_every_field_must_be_there(key: str) -> None:
    without = {name: value for name, value in METADATA.items() if name != key}
    assert native_contract.metadata_problems(without) == [f"its _metadata has no {key}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", 3),
        ("context_window_size", "256"),
        ("context_window_size", True),
        ("sliding_window_size", None),
        ("prefill_chunk_size", 0),
        ("max_batch_size", -1),
        ("tensor_parallel_shards", 2),
        ("kv_cache", {"num_hidden_layers": 2}),
        ("kv_cache", None),
        ("params", {}),
        ("params", [{"name": "w", "shape": [-1], "dtype": "float16", "preprocs": []}]),
        ("params", [{"name": "w", "shape": [1], "dtype": "float16"}]),
        ("memory_usage", {"prefill": 1.5}),
    ],
)
def test_every_field_must_be_of_its_kind(key: str, value: object) -> None:
    (problem,) = native_contract.metadata_problems(METADATA | {key: value})
    assert problem.startswith(f"{key} of its _metadata must be ")
