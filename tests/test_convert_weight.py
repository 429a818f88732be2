"""The convert_weight stage: the bytes mlc_llm writes, and safe output."""

import errno
import hashlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_support import GOLDEN, Changed, Tensors, check_whole, silent
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from engine.embedded import convert_weight
from engine.embedded.__main__ import main
from engine.embedded.convert_weight import convert
from engine.embedded.source import storage_order
from engine.embedded.spec import Parameter
from engine.embedded.stored import StoredTensor
from engine.embedded.weights import SHARD_LIMIT, plan_shards
from engine.errors import StageError, UsageError
from engine.model.tensors import open_tensors

DATA = Path(__file__).parent / "data"
LARGE = DATA / "golden-large"
ALL = ("q0f16", "q0f32", "q3f16_1", "q4f16_1", "q4f32_1")


@pytest.fixture
def model(tmp_path: Path) -> Changed:
    """Makes changed copies of a golden model."""
    return Changed(tmp_path)


# The bytes


@pytest.mark.parametrize("quantization", ALL)
def test_every_byte_is_what_mlc_llm_writes(golden: Path, quantization: str, tmp_path: Path) -> None:
    expected = (golden / "expected" / quantization / "tensor-cache.json").read_bytes()
    convert(golden / "hf", quantization, tmp_path, progress=silent)
    assert (tmp_path / "tensor-cache.json").read_bytes() == expected
    assert (tmp_path / "ndarray-cache.json").read_bytes() == expected
    check_whole(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ndarray-cache.json",
        "params_shard_0.bin",
        "tensor-cache.json",
    ]


@pytest.mark.parametrize("quantization", ALL)
def test_a_config_of_transformers_5_gives_the_same(golden: Path, quantization: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    shutil.copy(golden / "config.transformers5.json", config)
    convert(config, quantization, tmp_path / "out", source=golden / "hf", progress=silent)
    found = (tmp_path / "out" / "tensor-cache.json").read_bytes()
    assert found == (golden / "expected" / quantization / "tensor-cache.json").read_bytes()


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    argv, sys.argv = sys.argv, ["make.py", str(folder)]
    try:
        runpy.run_path(str(LARGE / "make.py"))
    finally:
        sys.argv = argv
    return folder


@pytest.mark.parametrize("quantization", ["q0f16", "q4f16_1", "q4f32_1"])
def test_a_model_of_several_shards_equals_mlc_llms_in_bounded_memory(
    large: Path, quantization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    tracemalloc.start()
    try:
        convert(large, quantization, tmp_path, progress=silent)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    found = (tmp_path / "tensor-cache.json").read_bytes()
    assert found == (LARGE / "expected" / quantization / "tensor-cache.json").read_bytes()
    check_whole(tmp_path)
    assert peak < 16e6  # its largest tensor has 32.8 MB, its file 89


@pytest.mark.parametrize("quantization", ["q0f32", "q4f16_1"])
@pytest.mark.parametrize(("cores", "block"), [(1, 64), (7, 1000)])
def test_neither_cores_nor_block_size_change_a_byte(
    cores: int, block: int, quantization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(convert_weight, "_BLOCK", block)
    convert(GOLDEN / "llama" / "hf", quantization, tmp_path, progress=silent)
    found = (tmp_path / "tensor-cache.json").read_bytes()
    assert found == (GOLDEN / "llama" / "expected" / quantization / "tensor-cache.json").read_bytes()


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    # bfloat16 sources become float32 exactly, and float16 as conversion itself would cast them.
    [(np.float16, "q0f16"), (np.float16, "q4f16_1"), *((np.float32, name) for name in ALL)],
)
def test_sources_of_other_dtypes_give_the_same(
    model: Changed, dtype: Any, quantization: str, tmp_path: Path
) -> None:
    def retype(tensors: Tensors) -> None:
        tensors.update({k: v.astype(np.float32).astype(dtype) for k, v in tensors.items()})

    convert(model(retype), quantization, tmp_path / "out", progress=silent)
    found = (tmp_path / "out" / "tensor-cache.json").read_text()
    assert found == (GOLDEN / "llama_tied" / "expected" / quantization / "tensor-cache.json").read_text()


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=30))
def test_shards_pack_as_tvm_packs_them(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    from tvm.contrib.tvmjs import TensorCacheShardingManager

    folder = tmp_path_factory.mktemp("packed")
    manager = TensorCacheShardingManager(str(folder), "params_shard", 64)
    for at, size in enumerate(sizes):
        manager.append_or_update(b"\0" * 2 * size, f"t{at}", [size], "float16", "raw")
    expected = [
        (shard["dataPath"], shard["nbytes"], [(r["name"], r["byteOffset"]) for r in shard["records"]])
        for shard in manager.finish()
    ]
    shutil.rmtree(folder)
    tensors = [StoredTensor(name=f"t{at}", shape=(n,), dtype="float16") for at, n in enumerate(sizes)]
    found = [
        (shard.file, shard.nbytes, [(r.tensor.name, r.offset) for r in shard.records])
        for shard in plan_shards(tensors, limit=64)
    ]
    assert found == expected


def test_the_default_limit_is_32_mib() -> None:
    half = StoredTensor(name="a", shape=(SHARD_LIMIT // 4,), dtype="float16")
    other = StoredTensor(name="b", shape=(SHARD_LIMIT // 4,), dtype="float16")
    assert [[r.tensor.name for r in s.records] for s in plan_shards([half, other])] == [["b"], ["a"]]


def test_storage_order_is_by_file_then_as_the_source_lists_tensors(tmp_path: Path) -> None:
    for file, names in {"1": ("x",), "2": ("q", "y"), "3": ("k", "v")}.items():
        save_file({name: np.zeros((1, 1), np.float32) for name in names}, tmp_path / f"{file}.safetensors")
    files = {"v": "3", "q": "2", "x": "1", "k": "3", "y": "2"}
    index = {"weight_map": {name: f"{file}.safetensors" for name, file in files.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    def parameter(name: str, *sources: str) -> Parameter:
        return Parameter(name=name, shape=(len(sources), 1), sources=sources, kind="linear", role=name)

    parameters = (parameter("x", "x"), parameter("y", "y"), parameter("qkv", "q", "k", "v"))
    ordered = storage_order(parameters, open_tensors(tmp_path))
    assert [p.name for p in ordered] == ["qkv", "y", "x"]


# What it says


def test_progress_counts_every_byte_and_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None, str, str]] = []
    done = convert(GOLDEN / "gemma3_text" / "hf", "q4f16_1", tmp_path, progress=lambda *p: seen.append(p))
    counts = [count for count, *_ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == done.nbytes
    assert {(total, unit) for _, total, unit, _ in seen} == {(done.nbytes, "bytes")}
    assert seen[-1][3].startswith("tensor 86/86 ")


def test_values_beyond_float16_are_refused_by_name(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def enlarge(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4:6] = 1e5

    folder, out = model(enlarge), tmp_path / "out"
    assert main(["convert_weight", str(folder), "--quantization", "q0f16", "-o", str(out)]) == 2
    told = capsys.readouterr().err
    assert "model.layers.1.mlp.up_proj.weight has 2 values beyond the range of float16" in told
    assert "q4f32_1" in told
    convert(folder, "q0f32", out, progress=silent)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(model: Changed, tmp_path: Path, bad: float) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["model.layers.1.self_attn.k_proj.weight"][2, 5] = bad

    with pytest.raises(UsageError, match=r"layers\.1\.self_attn\.k_proj\.weight has 1 NaN or infinite"):
        convert(model(spoil), "q4f32_1", tmp_path / "out", progress=silent)
    assert list((tmp_path / "out").iterdir()) == []


def test_unused_tensors_are_named_and_harmless_ones_are_not(
    model: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()

    convert(model(add, "quiet"), "q0f16", tmp_path / "out", progress=silent)
    assert capsys.readouterr().err == ""
    convert(
        model(lambda tensors: tensors.update(extra=np.ones(3)), "loud"),
        "q0f16",
        tmp_path / "out",
        progress=silent,
    )
    assert "warning: 1 tensors of the source have no place in this model: extra." in capsys.readouterr().err


# Output safety


def old_export(output: Path) -> dict[str, bytes]:
    """An export with more shards than the next will have, and the manifest TVM adds for float32."""
    convert(GOLDEN / "llama" / "hf", "q0f32", output, progress=silent)
    for name in ("params_shard_7.bin", "params_shard_12.bin", "tensor-cache-b16.json", "other.bin"):
        (output / name).write_bytes(b"old")
    return {path.name: path.read_bytes() for path in output.iterdir()}


def test_a_conversion_removes_what_an_earlier_one_left_and_nothing_else(tmp_path: Path) -> None:
    old_export(tmp_path)
    convert(GOLDEN / "llama" / "hf", "q4f16_1", tmp_path, progress=silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ndarray-cache.json",
        "other.bin",
        "params_shard_0.bin",
        "tensor-cache.json",
    ]


def test_a_conversion_that_fails_leaves_the_earlier_export_as_it_was(model: Changed, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["model.norm.weight"][0] = np.nan

    folder, out = model(spoil), tmp_path / "out"
    before = old_export(out)
    with pytest.raises(UsageError):
        convert(folder, "q0f16", out, progress=silent)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", range(8))
def test_a_commit_stopped_at_any_step_leaves_no_manifest_of_missing_shards(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_export(tmp_path)
    (tmp_path / "other.bin").unlink()
    left = step

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(Path, name)

        def call(self: Path, *arguments: Any, **options: Any) -> Any:
            nonlocal left
            if self.parent in (tmp_path, tmp_path / ".convert_weight"):
                if left == 0:
                    raise Killed
                left -= 1
            return original(self, *arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("unlink", "replace"):
            patched.setattr(Path, name, counted(name))
        with pytest.raises(Killed):
            convert(GOLDEN / "llama" / "hf", "q4f16_1", tmp_path, progress=silent)
    if (tmp_path / "tensor-cache.json").exists():
        named = json.loads((tmp_path / "tensor-cache.json").read_text())["records"]
        for shard in named:
            data = (tmp_path / shard["dataPath"]).read_bytes()
            assert hashlib.md5(data).hexdigest() == shard["md5sum"]
    convert(GOLDEN / "llama" / "hf", "q4f16_1", tmp_path, progress=silent)
    check_whole(tmp_path)


def test_a_killed_conversion_leaves_nothing_that_looks_whole(large: Path, tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from engine.embedded.convert_weight import convert
convert(Path(sys.argv[1]), "q4f16_1", Path(sys.argv[2]), progress=lambda *_: os._exit(9))
"""
    child = subprocess.run([sys.executable, "-c", script, str(large), str(tmp_path)], check=False)
    assert child.returncode == 9
    assert [path.name for path in tmp_path.iterdir()] == [".convert_weight"]
    convert(large, "q4f16_1", tmp_path, progress=silent)
    check_whole(tmp_path)
    assert not (tmp_path / ".convert_weight").exists()


def test_a_full_disk_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.FileIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    original = Path.open

    def opened(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return FullDisk(self, "w") if mode == "wb" else original(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(StageError, match=r"No space left .* they need 270,976 bytes") as caught:
        convert(GOLDEN / "llama" / "hf", "q0f16", tmp_path, progress=silent)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StageError, match="cannot be written to"):
        convert(GOLDEN / "llama" / "hf", "q0f16", tmp_path / "out", progress=silent)
