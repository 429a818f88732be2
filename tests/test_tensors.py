"""Reading safetensors: values equal the reference reader's, and every bad file is told in plain words."""

import json
import shutil
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from engine.errors import StageError, UsageError, WizardError
from engine.model.files import read_json_object
from engine.model.tensors import INDEX_FILE, SINGLE_FILE, open_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 536870912\n"


def raw_file(path: Path, header: object, data: bytes = b"") -> Path:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def entry(
    begin: int, end: int, dtype: str = "F32", shape: tuple[int, ...] | None = None
) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape or ((end - begin) // 4,)), "data_offsets": [begin, end]}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    save_file(
        {
            "a": rng.standard_normal((5, 4)).astype(np.float32),
            "b": rng.standard_normal((3, 2, 2)).astype(np.float16),
            "c": rng.standard_normal(7).astype(ml_dtypes.bfloat16),
            "d": np.arange(3),
        },
        tmp_path / SINGLE_FILE,
    )
    return tmp_path


def test_values_equal_those_of_the_reference_reader(golden: Path) -> None:
    source = open_tensors(golden / "hf")
    seen = set()
    for path, infos in source.files.items():
        with safe_open(path, "np") as reference:
            for info in infos:
                expected = reference.get_tensor(info.name)
                found = source.read(info.name)
                assert found.dtype == expected.dtype
                assert found.tobytes() == expected.tobytes()
                assert info.shape == expected.shape
                assert info.size == expected.size
                seen.add(info.name)
    assert seen == set(source.names)


@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize("rows", [slice(0, 2), slice(1, 3), slice(2, 99), slice(3, 3), slice(None)])
def test_rows_are_a_slice_of_the_whole(small: Path, name: str, rows: slice) -> None:
    source = open_tensors(small)
    np.testing.assert_array_equal(source.read(name, rows), source.read(name)[rows])


def test_names_follow_the_data_in_one_file_and_the_index_in_several(tmp_path: Path) -> None:
    raw_file(tmp_path / SINGLE_FILE, {"a": entry(8, 12), "b": entry(0, 8)}, b"\0" * 12)
    assert open_tensors(tmp_path).names == ("b", "a")
    (tmp_path / "part.safetensors").write_bytes((tmp_path / SINGLE_FILE).read_bytes())
    index = {"weight_map": {"a": "part.safetensors", "b": "part.safetensors"}}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    # transformers takes the single file, beside which an earlier saving may have left an index.
    assert open_tensors(tmp_path).names == ("b", "a")
    (tmp_path / SINGLE_FILE).rename(tmp_path / "other.safetensors")
    source = open_tensors(tmp_path)
    assert source.names == ("a", "b")
    assert "a" in source
    assert "z" not in source
    assert open_tensors(tmp_path / "other.safetensors").names == ("b", "a")
    assert open_tensors(tmp_path / INDEX_FILE).names == ("a", "b")


def test_a_tensor_of_no_float_dtype_fails_only_when_read(small: Path) -> None:
    source = open_tensors(small)
    assert source.info("d").dtype == "I64"
    with pytest.raises(UsageError, match=r"Tensor d .* I64"):
        source.read("d")


def test_a_file_cut_short_says_what_was_expected_and_found(small: Path) -> None:
    path = small / SINGLE_FILE
    source = open_tensors(small)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(UsageError, match=f"truncated: {len(whole)} bytes expected, {len(whole) - 5} found"):
        open_tensors(small)
    last = max((source.info(n) for n in source.names if n != "d"), key=lambda info: info.offset).name
    path.write_bytes(whole[: source.info(last).offset + 2])
    with pytest.raises(UsageError, match="truncated"):
        source.read(last)
    path.unlink()
    with pytest.raises(StageError, match="cannot be read"):
        source.read(last)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", b"", "not valid JSON"),
        (b"[" * 100_000, b"", "not valid JSON"),
        (b"\xff\xfe", b"", "not valid JSON"),
        (b"[]", b"", "no JSON object"),
        ({"a": 1}, b"", "does not describe tensor a"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4, "does not describe"),
        ({"a": entry(0, 4, shape=(-1,))}, b"\0" * 4, "does not describe"),
        ({"a": entry(4, 0, shape=(1,))}, b"\0" * 4, "has -4 bytes"),
        ({"a": entry(0, 4, shape=(2,))}, b"\0" * 4, r"a of F32 \[2\] has 4 bytes"),
        ({"a": entry(0, 0, shape=(0, 2**62))}, b"", "tensor a of F32"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, b"\0" * 4, "tensor [ab] starts at"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12, "tensor b starts at"),
        ({"a": entry(0, 4)}, b"\0" * 9, "5 bytes after its last tensor"),
    ],
)
def test_a_malformed_header_names_the_file_and_the_fault(
    tmp_path: Path, header: object, data: bytes, message: str
) -> None:
    raw_file(tmp_path / SINGLE_FILE, header, data)
    with pytest.raises(UsageError, match=message) as caught:
        open_tensors(tmp_path)
    assert SINGLE_FILE in caught.value.what
    assert caught.value.remedy


def test_a_header_longer_than_any_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / SINGLE_FILE).write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(UsageError, match="its header claims"):
        open_tensors(tmp_path)


def test_a_git_lfs_pointer_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / SINGLE_FILE).write_bytes(POINTER)
    with pytest.raises(UsageError, match=r"model.safetensors is a Git LFS pointer") as caught:
        open_tensors(tmp_path)
    assert "git lfs pull" in caught.value.remedy
    (tmp_path / "config.json").write_bytes(POINTER)
    with pytest.raises(UsageError, match=r"config.json is a Git LFS pointer"):
        read_json_object(tmp_path / "config.json")


def sharded(tmp_path: Path) -> Path:
    shutil.copytree(Path(__file__).parent / "data" / "golden" / "llama" / "hf", tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_an_index_that_names_missing_files_says_which(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    (folder / "model-00002-of-00006.safetensors").unlink()
    with pytest.raises(
        UsageError, match=r"names 6 weight files, of which 1 are not in .*model-00002-of-00006"
    ):
        open_tensors(folder)


def test_an_index_that_contradicts_its_files_says_where(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    index = json.loads((folder / INDEX_FILE).read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00006.safetensors"
    (folder / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(UsageError, match=r"model.norm.weight is in model-00001-of-00006"):
        open_tensors(folder)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "..\\a", "C:a"])
def test_an_index_cannot_point_outside_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UsageError, match="outside its folder"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX_FILE).write_text(text)
    with pytest.raises(UsageError, match="has no weight_map"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("present", "message", "remedy"),
    [
        ((), "holds no weights", "hf download"),
        (("adapter_config.json", "adapter_model.safetensors"), "LoRA adapter", "model.lora_adapter"),
        (("pytorch_model-00001-of-00002.bin",), "neither pytorch_model.bin nor", "hf download"),
        (("model-00001-of-00002.safetensors",), "neither model.safetensors nor", "hf download"),
        (("model.Q4_K_M.gguf",), "quantized for another runtime", "original checkpoint"),
    ],
)
def test_a_folder_without_usable_weights_says_what_it_has(
    tmp_path: Path, present: tuple[str, ...], message: str, remedy: str
) -> None:
    for name in present:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=message) as caught:
        open_tensors(tmp_path)
    assert remedy in caught.value.remedy


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no folder .*nowhere"):
        open_tensors(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_json_that_is_no_object_names_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        read_json_object(path)


WHOLE = struct.pack("<Q", 136) + json.dumps(
    {"a": entry(0, 24, shape=(3, 2)), "b": entry(24, 28, "BF16", shape=(2,))}
).encode().ljust(136) + bytes(range(28))  # fmt: skip


@settings(deadline=None)
@given(
    cut=st.integers(0, len(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
)
def test_damage_never_gives_anything_but_a_wizard_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(WHOLE)
    for place, value in changes:
        damaged[place] = value
    path = tmp_path_factory.mktemp("damaged", numbered=True) / SINGLE_FILE
    path.write_bytes(damaged[: len(WHOLE) - cut])
    if path.read_bytes() == WHOLE:
        assert open_tensors(path).names == ("a", "b")
        return
    try:
        source = open_tensors(path)
        for name in source.names:
            assert source.read(name).nbytes == source.info(name).nbytes
    except WizardError as error:
        assert SINGLE_FILE in error.what  # noqa: PT017  not raising is right too
