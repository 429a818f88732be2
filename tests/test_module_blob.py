"""What TVM packs into a library, read and written again."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import module_blob
from engine.module_blob import EXECUTABLE_KIND, LIBRARY_KIND, Blob, BlobError, Module

METADATA = {"model_type": "llama", "quantization": "q4f16_1", "params": []}


def sized(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def blob(code: bytes = b"kernel source") -> Blob:
    tree = struct.pack("<QQQQQ", 4, 0, 1, 2, 2) + struct.pack("<QQQ", 2, 1, 2)
    executable = b"header" + json.dumps(METADATA).encode() + b"trailer"
    return Blob(
        tree=tree,
        modules=(
            Module(kind=EXECUTABLE_KIND, data=executable),
            Module(kind=LIBRARY_KIND, data=b""),
            Module(kind="cuda", data=sized(b"cuda") + b"FUNCTIONS" + sized(code)),
        ),
    )


def test_it_is_read_as_it_was_written() -> None:
    assert module_blob.parse(blob().packed() + b"whatever the linker put behind it") == blob()
    assert module_blob.metadata(blob().modules) == METADATA


def test_the_code_of_a_module_is_replaced() -> None:
    cuda = blob().modules[2]
    changed = module_blob.with_code(cuda, b"kernel source", "ptx", b"//ptx\0")
    assert changed.format == "ptx"
    assert changed.data == sized(b"ptx") + b"FUNCTIONS" + sized(b"//ptx\0")
    with pytest.raises(BlobError):
        module_blob.with_code(cuda, b"another source", "ptx", b"")


@given(st.integers(0, len(blob().packed()) - 1))
def test_a_cut_blob_is_refused(length: int) -> None:
    with pytest.raises(BlobError):
        module_blob.parse(blob().packed()[:length])


@given(st.binary(max_size=200))
def test_bytes_that_are_none(data: bytes) -> None:
    try:
        module_blob.parse(data)
    except BlobError:
        return
    # Only an empty import tree makes a blob of so few bytes.
    assert struct.unpack_from("<Q", data)[0] < len(data)


@pytest.mark.parametrize("data", [b"", b'{"model_type": "llama"', b'{"model_type"]'])
def test_no_metadata(data: bytes) -> None:
    with pytest.raises(BlobError, match="no metadata"):
        module_blob.metadata([Module(kind=EXECUTABLE_KIND, data=data)])
