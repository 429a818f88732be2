"""PyTorch files: what PyTorch itself reads from them, no code run, every bad file told in plain words."""

import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_files import archive, name, save, save_sharded, state, storage, text, view

from engine.embedded.convert_weight import convert
from engine.errors import UsageError, WizardError
from engine.model import facts, nearby
from engine.model.tensors import TORCH_INDEX_FILE, TORCH_SINGLE_FILE, open_tensors

DATA = Path(__file__).parent / "data"
TORCH = DATA / "torch"
GOLDEN = DATA / "golden"
KINDS = ("zip", "protocol-4", "legacy")
FLOAT = storage("0", "FloatStorage", 6)
SIX = {"0": np.arange(6, dtype=np.float32).tobytes()}


def refused(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        open_tensors(path)
    assert path.name in caught.value.what
    assert caught.value.remedy
    return caught.value


# What torch.save itself wrote


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_what_pytorch_reads(kind: str) -> None:
    expected = open_tensors(TORCH / "expected.safetensors")
    source = open_tensors(TORCH / f"{kind}.bin")
    assert set(source.names) == set(expected.names)
    for tensor in source.names:
        info, other = source.info(tensor), expected.info(tensor)
        assert (info.shape, info.dtype, info.nbytes) == (other.shape, other.dtype, other.nbytes)
        if info.dtype not in ("F32", "F16", "BF16"):
            continue
        found, wanted = source.read(tensor), expected.read(tensor)
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert found.tobytes() == wanted.tobytes()
        if found.ndim:
            for rows in (slice(0, 2), slice(1, 3), slice(1, 99), slice(2, 2)):
                np.testing.assert_array_equal(source.read(tensor, rows), wanted[rows])


def test_names_are_in_the_order_of_the_state_dict() -> None:
    assert open_tensors(TORCH / "zip.bin").names[:6] == ("f32", "f16", "bf16", "vector", "scalar", "empty")
    assert open_tensors(TORCH / "zip.bin").names == open_tensors(TORCH / "legacy.bin").names


def test_a_checkpoint_of_a_training_run_says_what_it_holds() -> None:
    error = refused(TORCH / "training.bin")
    assert "'state_dict', 'epoch'" in error.why
    assert "save_pretrained" in error.remedy


# In a model's folder


def as_torch(model: str, to: Path, write: Callable[[Path, dict[str, Any]], object]) -> Path:
    """A golden model's folder with its weights as PyTorch files."""
    folder = to / "model"
    shutil.copytree(GOLDEN / model / "hf", folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    source = open_tensors(GOLDEN / model / "hf")
    write(folder, {tensor: source.read(tensor) for tensor in source.names})
    return folder


def manifest(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "tensor-cache.json").read_text())
    return {
        record["name"]: (record, shard["md5sum"]) for shard in found["records"] for record in shard["records"]
    }


@pytest.mark.parametrize("quantization", ["q0f16", "q4f32_1"])
def test_a_model_of_one_file_exports_to_the_same_bytes(quantization: str, tmp_path: Path) -> None:
    folder = as_torch("gemma3_text", tmp_path, lambda at, tensors: save(at / TORCH_SINGLE_FILE, tensors))
    convert(folder, quantization, tmp_path / "out", progress=lambda *_: None)
    expected = GOLDEN / "gemma3_text" / "expected" / quantization / "tensor-cache.json"
    assert (tmp_path / "out" / "tensor-cache.json").read_bytes() == expected.read_bytes()


def test_a_sharded_model_exports_to_the_same_bytes_and_has_the_same_facts(tmp_path: Path) -> None:
    def write(folder: Path, tensors: dict[str, Any]) -> None:
        names = list(tensors)
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        save_sharded(folder, *({n: tensors[n] for n in half} for half in halves))

    folder = as_torch("llama_tied", tmp_path, write)
    convert(folder, "q4f16_1", tmp_path / "out", progress=lambda *_: None)
    expected = GOLDEN / "llama_tied" / "expected" / "q4f16_1"
    assert manifest(tmp_path / "out") == manifest(expected)
    found, same = facts.read(folder), facts.read(GOLDEN / "llama_tied" / "hf")
    assert (found.source_bytes, found.dtype, found.parameter_count, found.largest_tensor_bytes) == (
        same.source_bytes,
        same.dtype,
        same.parameter_count,
        same.largest_tensor_bytes,
    )
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UsageError, match=rf"{TORCH_INDEX_FILE} names 2 weight files, of which 1 are not"):
        open_tensors(folder)


def test_matrices_that_lie_transposed_export_to_the_same_bytes(tmp_path: Path) -> None:
    def write(folder: Path, tensors: dict[str, Any]) -> None:
        save(folder / TORCH_SINGLE_FILE, tensors, tuple(n for n, t in tensors.items() if t.ndim == 2))

    folder = as_torch("gemma3_text", tmp_path, write)
    convert(folder, "q4f32_1", tmp_path / "out", progress=lambda *_: None)
    expected = GOLDEN / "gemma3_text" / "expected" / "q4f32_1" / "tensor-cache.json"
    assert (tmp_path / "out" / "tensor-cache.json").read_bytes() == expected.read_bytes()


def test_safetensors_come_first_and_the_format_can_be_named(tmp_path: Path) -> None:
    shutil.copy(TORCH / "zip.bin", tmp_path / TORCH_SINGLE_FILE)
    assert "f32" in open_tensors(tmp_path)
    shutil.copy(GOLDEN / "llama_tied" / "hf" / "model.safetensors", tmp_path)
    assert "f32" not in open_tensors(tmp_path)
    assert "f32" in open_tensors(tmp_path, "huggingface-torch")
    (tmp_path / TORCH_SINGLE_FILE).unlink()
    with pytest.raises(UsageError, match=r"as model\.safetensors, which is not of the format"):
        open_tensors(tmp_path, "huggingface-torch")


def test_a_model_in_pytorch_files_is_found_on_this_machine(tmp_path: Path) -> None:
    as_torch("gemma3_text", tmp_path, lambda at, tensors: save(at / TORCH_SINGLE_FILE, tensors))
    assert f".{os.sep}model" in [model.source for model in nearby.models(tmp_path)]
    (tmp_path / "model" / TORCH_SINGLE_FILE).unlink()
    assert f".{os.sep}model" not in [model.source for model in nearby.models(tmp_path)]


@pytest.mark.parametrize("transposed", [(), ("a",)])
def test_memory_is_bounded(transposed: tuple[str, ...], tmp_path: Path) -> None:
    value = np.arange(1 << 23, dtype=np.float32).reshape(4096, 2048)
    path = save(tmp_path / "large.bin", {"a": value}, transposed)
    tracemalloc.start()
    try:
        source = open_tensors(path)
        for start in range(0, 4096, 128):
            rows = slice(start, start + 128)
            np.testing.assert_array_equal(source.read("a", rows), value[rows])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (value.nbytes * 1.6 if transposed else value.nbytes / 4)


# Code


class Evil:
    """Leaves a file where it is unpickled the usual way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "forbidden"),
    [(os.mkdir, "mkdir"), (eval, "eval"), (getattr, "getattr"), (shutil.rmtree, "shutil.rmtree")],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_named_and_never_run(
    function: Any, forbidden: str, protocol: int, legacy: bool, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    argument = f"open({str(trap)!r}, 'w')" if function is eval else str(trap)
    pickled = pickle.dumps({"weight": Evil(function, argument)}, protocol)
    path = tmp_path / TORCH_SINGLE_FILE
    if legacy:
        path.write_bytes(pickled)
    else:
        archive(path, pickled)
    error = refused(path)
    assert forbidden in error.what
    assert "it was not loaded" in error.what
    assert not trap.exists()
    if function in (os.mkdir, eval):  # it would have run
        pickle.loads(pickled)
        assert trap.exists()


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("torch", "load"),
        ("torch", "tensor"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_wrapper_subclass"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("collections", "defaultdict"),
        ("builtins", "dict"),
        ("torch_utils", "_rebuild_tensor_v2"),
        ("engine.model.torch_pickle", "_view"),
        ("torch", "FloatStorage.__init__"),
    ],
)
def test_no_other_name_is_known(module: str, attribute: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.bin", state({"a": name(module, attribute)}))
    assert f"{module}.{attribute}" in refused(path).what
    stack = b"\x80\x04" + text(module) + text(attribute) + b"\x93."
    assert f"{module}.{attribute}" in refused(archive(tmp_path / "a.bin", stack)).what


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (state({"a": name("torch", "FloatStorage") + b")\x81"}), "uses NEWOBJ"),
        (state({"a": name("torch", "FloatStorage") + b")R"}), "calls what is no function"),
        (state({"a": FLOAT + b"}b"}), "sets attributes of what is no dict"),
        (state({"a": text("x") + b"Q"}), "names data that is no storage"),
        (state({"a": b"(" + b"t" * 1 + text("k") + b"\x86d"}), "no valid PyTorch file"),
        (b"\x80\x02}" + b")" + text("v") + b"s.", "has a key of type tuple"),
        (b"\x80\x02", "pickle exhausted before seeing STOP"),
        (b"\x80\x02r\xff\xff\xff\xff.", "no valid PyTorch file"),
        (b"\x80\x02h\x05.", "no valid PyTorch file"),
        (b"\x80\x02a.", "no valid PyTorch file"),
        (b"\x80\x02\x87.", "more values than it has"),
        (b".", "no valid PyTorch file"),
        (b"not a pickle", "no valid PyTorch file"),
        (b"\x80\x02K\x01.", "does not hold a model's tensors by name"),
        (b"\x80\x02}.", "does not hold a model's tensors by name"),
        (state({"a": view(FLOAT, 0, (2, 4), (4, 1))}), "tensor a of F32 [2, 4] reaches beyond its data"),
        (state({"a": view(FLOAT, 5, (2,), (1,))}), "reaches beyond its data"),
        (state({"a": view(FLOAT, 0, (2, 3), (2**40, 1))}), "reaches beyond its data"),
        (state({"a": view(FLOAT, 0, (2**62, 2**62), (0, 0))}), "reaches beyond its data"),
        (state({"a": view(FLOAT, -1, (2,), (1,))}), "in another way"),
        (state({"a": view(FLOAT, 0, (2,), (-1,))}), "in another way"),
        (state({"a": view(FLOAT, 0, (2,), (1, 1))}), "as many strides as dimensions"),
        (state({"a": view(FLOAT, 0, (2,), (1,), b"}" + text("conj") + b"\x88s")}), "conjugated or negated"),
        (state({"a": view(text("x"), 0, (2,), (1,))}), "in another way"),
        (state({"a": view(storage("7", "FloatStorage", 6), 0, (2,), (1,))}), "is missing or of another size"),
        (state({"a": view(storage("0", "HalfStorage", 6), 0, (2,), (1,))}), "is missing or of another size"),
        (state({"a": view(storage("0", "FloatStorage", -6), 0, (2,), (1,))}), "is no storage"),
    ],
)
def test_a_malformed_pickle_says_what_is_wrong(pickled: bytes, message: str, tmp_path: Path) -> None:
    assert message in refused(archive(tmp_path / "a.bin", pickled, SIX)).what


# Damage


def test_files_of_other_kinds_are_told(tmp_path: Path) -> None:
    path = tmp_path / TORCH_SINGLE_FILE
    good = state({"a": view(FLOAT, 0, (6,), (1,))})
    assert open_tensors(archive(path, good, SIX)).read("a").tolist() == [0, 1, 2, 3, 4, 5]
    archive(path, good, SIX, byteorder=b"big")
    assert "big-endian" in refused(path).what
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "Git LFS pointer" in refused(path).what
    path.write_bytes(b"")
    assert "no valid PyTorch file" in refused(path).what
    path.write_bytes(b"storages".ljust(257, b"\0") + b"ustar" + b"\0" * 300)
    assert "before 2017" in refused(path).what
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data.pkl", good)
        out.writestr("archive/data/0", SIX["0"])
    assert "compressed" in refused(path).what
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("word/document.xml", "")
    assert "it has no data.pkl" in refused(path).what


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_told(kind: str, tmp_path: Path) -> None:
    whole = (TORCH / f"{kind}.bin").read_bytes()
    path = tmp_path / TORCH_SINGLE_FILE
    for length in (len(whole) - 1, len(whole) * 3 // 4, len(whole) // 2):
        path.write_bytes(whole[:length])
        what = refused(path).what
        assert any(told in what for told in ("truncated", "exhausted", "but only"))
    source = open_tensors(TORCH / f"{kind}.bin")
    last = max((source.info(n) for n in ("f32", "shared", "cube")), key=lambda info: info.offset)
    shutil.copy(TORCH / f"{kind}.bin", path)
    source = open_tensors(path)
    path.write_bytes(whole[: last.offset + 2])
    with pytest.raises(UsageError, match="truncated"):
        source.read(last.name)


WHOLE = {kind: (TORCH / f"{kind}.bin").read_bytes() for kind in KINDS}


@given(
    kind=st.sampled_from(KINDS),
    cut=st.integers(0, 5500),
    changes=st.lists(st.tuples(st.integers(0, 5500), st.integers(0, 255)), max_size=4),
)
def test_damage_never_gives_anything_but_a_wizard_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, cut: int, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(WHOLE[kind])
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = tmp_path_factory.mktemp("damaged", numbered=True) / TORCH_SINGLE_FILE
    path.write_bytes(damaged[: len(damaged) - cut % 64] if cut else damaged)
    try:
        source = open_tensors(path)
        for tensor in source.names:
            if source.info(tensor).dtype in ("F32", "F16", "BF16"):
                assert source.read(tensor).nbytes == source.info(tensor).nbytes
    except WizardError as error:
        assert TORCH_SINGLE_FILE in error.what  # noqa: PT017  not raising is right too


@given(st.binary(max_size=200))
def test_any_bytes_for_a_pickle_are_data_or_refused(
    tmp_path_factory: pytest.TempPathFactory, pickled: bytes
) -> None:
    path = archive(tmp_path_factory.mktemp("any", numbered=True) / "a.bin", pickled)
    with pytest.raises(UsageError):
        open_tensors(path)


def test_a_pickle_longer_than_any_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with path.open("wb") as file:  # a sparse file
        file.write(b"\x80\x02\x8d" + struct.pack("<Q", 1 << 40))
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        assert "no valid PyTorch file" in refused(path).what
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 250e6
