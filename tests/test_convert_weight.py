"""The convert_weight stage: the bytes mlc_llm writes, safe output, and bad input told in plain words."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from engine.embedded import convert_weight
from engine.embedded.__main__ import main
from engine.embedded.convert_weight import convert
from engine.embedded.source import storage_order
from engine.embedded.spec import Parameter
from engine.embedded.stored import StoredTensor
from engine.embedded.weights import SHARD_LIMIT, plan_shards
from engine.errors import StageError, UsageError, WizardError
from engine.model.tensors import SINGLE_FILE, open_tensors

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden"
LARGE = DATA / "golden-large"
ALL = ("q0f16", "q0f32", "q3f16_1", "q4f16_1", "q4f32_1")

Tensors = dict[str, np.ndarray[Any, Any]]


def check_whole(output: Path) -> dict[str, Any]:
    """The manifest in `output`, after checking that it names exactly the shards there, and whole ones."""
    manifest: dict[str, Any] = json.loads((output / "tensor-cache.json").read_text())
    for shard in manifest["records"]:
        data = (output / shard["dataPath"]).read_bytes()
        assert hashlib.md5(data).hexdigest() == shard["md5sum"]
        assert len(data) == shard["nbytes"]
    named = {shard["dataPath"] for shard in manifest["records"]}
    assert {path.name for path in output.glob("*.bin")} == named
    return manifest


def silent(*_: object) -> None:
    """No narration of progress."""


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the golden llama_tied model, its tensors and config changed as given."""

    def make(
        change: Callable[[Tensors], object] | None = None, name: str = "model", **config: object
    ) -> Path:
        folder = tmp_path / name
        shutil.copytree(GOLDEN / "llama_tied" / "hf", folder)
        if change is not None:
            tensors = load_file(folder / SINGLE_FILE)
            change(tensors)
            save_file(tensors, folder / SINGLE_FILE)
        found = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(found | config))
        return folder

    return make


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
    model: Callable[..., Path], dtype: Any, quantization: str, tmp_path: Path
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


def test_values_beyond_float16_are_counted_and_named(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def enlarge(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4:6] = 1e5

    folder, out = model(enlarge), tmp_path / "out"
    assert main(["convert_weight", str(folder), "--quantization", "q0f16", "-o", str(out)]) == 0
    assert "warning: 2 values of model.layers.1.mlp.up_proj.weight" in capsys.readouterr().err
    assert convert(folder, "q0f32", out, progress=silent).overflowed == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(
    model: Callable[..., Path], tmp_path: Path, bad: float
) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["model.layers.1.self_attn.k_proj.weight"][2, 5] = bad

    with pytest.raises(UsageError, match=r"layers\.1\.self_attn\.k_proj\.weight has 1 NaN or infinite"):
        convert(model(spoil), "q4f32_1", tmp_path / "out", progress=silent)
    assert list((tmp_path / "out").iterdir()) == []


def test_unused_tensors_are_named_and_harmless_ones_are_not(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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


def test_a_conversion_that_fails_leaves_the_earlier_export_as_it_was(
    model: Callable[..., Path], tmp_path: Path
) -> None:
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


# Bad input


def told(capsys: pytest.CaptureFixture[str], *arguments: str, out: Path) -> str:
    """What the command says on stderr when it refuses `arguments`; nothing may have been written."""
    options = ["-o", str(out)] + ([] if "--quantization" in arguments else ["--quantization", "q0f16"])
    assert main(["convert_weight", *arguments, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert len(captured.err.splitlines()) >= 2  # what, and a remedy
    assert not out.exists()
    return captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--device", "cuda"), "--device cuda is not supported"),
        (("--source-format", "awq"), "--source-format awq goes with --quantization q4f16_autoawq"),
        (("--quantization", "q4f16_awq"), "takes over the 4 bit weights of an AWQ checkpoint"),
        (("--source-format", "huggingface-torch"), "not of the format that --source-format names"),
        (("--lora-adapter", "adapter"), "adapter is no adapter: it has no adapter_config.json"),
        (("--quantization", "q8f16_1"), "Choose one of q0f16, "),
        (("--model-type", "gemma9"), "Model type 'gemma9'"),
        (("--source", "nowhere"), "There is no folder nowhere"),
    ],
)
def test_a_flag_that_is_not_supported_is_refused(
    flags: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(capsys, str(GOLDEN / "llama" / "hf"), *flags, out=tmp_path / "out")


@pytest.mark.parametrize("device", ["auto", "cpu", "cpu:0"])
def test_the_cpu_is_accepted_by_name(device: str, tmp_path: Path) -> None:
    arguments = ["convert_weight", str(GOLDEN / "llama" / "hf" / "config.json"), "--quantization", "q0f16"]
    flags = ["--device", device, "--source-format", "huggingface-safetensor", "--model-type", "llama"]
    assert main([*arguments, *flags, "--output", str(tmp_path)]) == 0
    check_whole(tmp_path)


def test_a_folder_or_config_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "There is no nowhere." in told(capsys, "nowhere", out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    found = told(capsys, str(tmp_path / "empty"), out=tmp_path / "out")
    assert str(Path("empty") / "config.json") in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not valid JSON"),
        ("[]", "config.json holds no JSON object"),
        ("{}", "is not supported by the embedded compiler"),
        ('{"model_type": "llama"}', "config.json has no "),
        ('{"model_type": "gemma3_text"}', "config.json "),
    ],
)
def test_a_bad_config_says_what_is_wrong(
    text: str, message: str, model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model()
    (folder / "config.json").write_text(text)
    assert message in told(capsys, str(folder), out=tmp_path / "out")


@pytest.mark.parametrize("value", ["16", None, 0, [64], {}])
def test_a_config_value_of_the_wrong_type_is_no_traceback(
    value: object, model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(num_attention_heads=value, head_dim=None)
    assert "config" in told(capsys, str(folder), out=tmp_path / "out")


@pytest.mark.parametrize("value", [0, -64, 64.0])
def test_a_size_that_no_model_has_is_refused(
    value: object, model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(hidden_size=value, head_dim=16)), out=tmp_path / "out")
    assert f"hidden_size = {value} is no whole number above 0" in found


def test_a_name_no_folder_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(WizardError, match=r"a{300}"):
        convert(Path("a" * 300), "q0f16", tmp_path / "out", progress=silent)
    with pytest.raises(WizardError, match=r"a{300}"):
        open_tensors(Path("a" * 300))


def test_a_missing_tensor_is_named(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "no tensor model.layers.1.mlp.up_proj.weight" in told(capsys, str(folder), out=tmp_path / "out")


def test_a_model_that_lacks_only_its_head_is_told_of_tying(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(tie_word_embeddings=False)), out=tmp_path / "out")
    assert "no tensor lm_head.weight" in found
    assert "set tie_word_embeddings to true" in found


@pytest.mark.parametrize(
    ("prefix", "message"),
    [("base_model.model.lora_A.", "a LoRA adapter"), ("thinker.", "may be of different models")],
)
def test_tensors_under_other_names_are_recognised(
    prefix: str,
    message: str,
    model: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    assert message in told(capsys, str(model(rename)), out=tmp_path / "out")


def test_a_resized_vocabulary_is_recognised(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(vocab_size=400)), out=tmp_path / "out")
    assert "found model.embed_tokens.weight [384, 64]; config.json asks for [400, 64]" in found
    assert "vocab_size" in found


def test_a_tensor_of_another_shape_shows_both_shapes(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, str(model(intermediate_size=200)), out=tmp_path / "out")
    assert "config.json asks for " in found
    assert "160" in found


def test_a_quantized_checkpoint_is_refused_by_its_dtype(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def narrow(tensors: Tensors) -> None:
        name = "model.layers.0.mlp.down_proj.weight"
        tensors[name] = tensors[name].astype(np.float32).astype(np.int8)

    found = told(capsys, str(model(narrow)), out=tmp_path / "out")
    assert "Tensor model.layers.0.mlp.down_proj.weight in model.safetensors has dtype I8" in found
