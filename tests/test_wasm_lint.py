"""The WebAssembly linter: what it refuses, and that no bytes at all can break it."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine import wasm_lint
from engine.wasm_lint import CALLED_EXPORTS, INITIALIZER, MAGIC, WasmFormatError

FUNCTION, TABLE, MEMORY, GLOBAL, TAG = range(5)
GROWABLE = b"\x00\x40"


def leb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def text(value: str) -> bytes:
    return leb(len(value.encode())) + value.encode()


def section(number: int, *items: bytes) -> bytes:
    body = leb(len(items)) + b"".join(items)
    return bytes([number]) + leb(len(body)) + body


def imported(space: str, name: str, kind: int = FUNCTION, description: bytes = b"\x00") -> bytes:
    return text(space) + text(name) + bytes([kind]) + description


def exported(name: str, kind: int = FUNCTION) -> bytes:
    return text(name) + bytes([kind]) + leb(0)


def module(
    *,
    imports: tuple[bytes, ...] = (),
    memories: tuple[bytes, ...] = (GROWABLE,),
    exports: tuple[bytes, ...] | None = None,
    tail: bytes = b"",
) -> bytes:
    """A library that WebLLM takes, but for what the arguments change."""
    if exports is None:
        functions = sorted({*CALLED_EXPORTS, INITIALIZER})
        exports = (*(exported(name) for name in functions), exported("memory", MEMORY))
    custom = b"\x00" + leb(5) + text("name") + b""
    return MAGIC + custom + section(2, *imports) + section(5, *memories) + section(7, *exports) + tail


@pytest.fixture
def lint(tmp_path: Path):
    def run(data: bytes) -> list[tuple[str, str]]:
        path = tmp_path / "model.wasm"
        path.write_bytes(data)
        return [(finding.rule, finding.detail) for finding in wasm_lint.lint(path)]

    return run


def test_a_good_library_passes(lint):
    supplied = tuple(imported(*pair) for pair in sorted(wasm_lint.SUPPLIED_IMPORTS))
    assert lint(module(imports=supplied)) == []


def test_every_unknown_import_is_named(lint):
    imports = (
        imported("env", "TVMFFIWasmSafeCall"),
        imported("env", "dlopen"),
        imported("wasi_snapshot_preview1", "fd_fdstat_get"),
        imported("env", "__cpp_exception", TAG, b"\x00\x01"),
        imported("env", "table", TABLE, b"\x70\x01\x01\x05"),
        imported("env", "base", GLOBAL, b"\x7f\x00"),
        imported("env", "fd_write"),
    )
    found = lint(module(imports=imports))
    assert [rule for rule, _ in found] == ["import"] * 6
    names = ("dlopen", "fd_fdstat_get", "__cpp_exception", "env.table", "env.base", "env.fd_write")
    for name, (_, detail) in zip(names, found, strict=True):
        assert name in detail


def test_a_supplied_name_of_another_kind_is_refused(lint):
    wrong = imported("env", "TVMFFIWasmSafeCall", GLOBAL, b"\x7f\x00")
    assert lint(module(imports=(wrong,))) == [
        ("import", "it imports the global env.TVMFFIWasmSafeCall, which WebLLM does not supply")
    ]


@pytest.mark.parametrize("name", sorted({*CALLED_EXPORTS, INITIALIZER}))
def test_each_called_export_is_needed(lint, name):
    functions = sorted({*CALLED_EXPORTS, INITIALIZER} - {name})
    exports = (*(exported(other) for other in functions), exported("memory", MEMORY))
    assert lint(module(exports=exports)) == [("export", f"it does not export the function {name}")]
    as_global = (*exports, exported(name, GLOBAL))
    assert [rule for rule, _ in lint(module(exports=as_global))] == ["export"]


@pytest.mark.parametrize(
    ("memories", "named", "problem"),
    [
        ((GROWABLE,), False, "does not export a memory"),
        ((), True, "does not export a memory"),
        ((b"\x01\x10\x10",), True, "its memory of 1048576 bytes cannot grow"),
    ],
)
def test_memory_is_exported_and_grows(lint, memories, named, problem):
    functions = tuple(exported(name) for name in sorted({*CALLED_EXPORTS, INITIALIZER}))
    exports = (*functions, exported("memory", MEMORY)) if named else functions
    [(rule, detail)] = lint(module(memories=memories, exports=exports))
    assert rule == "memory"
    assert problem in detail


def test_a_memory_with_room_to_its_maximum_grows(lint):
    assert lint(module(memories=(b"\x01\x10\x11",))) == []


@pytest.mark.parametrize(
    ("shader", "features"),
    [
        (b"@compute fn main() {}", []),
        (b"enable f16;\nfn main() {}", ["shader-f16"]),
        (b"enable subgroups;\nenable f16;\n", ["shader-f16", "subgroups"]),
    ],
)
def test_required_features(tmp_path, shader, features):
    path = tmp_path / "model.wasm"
    path.write_bytes(module(tail=section(11, b"\x01" + text("x") + shader)))
    assert wasm_lint.required_features(path) == features


def test_size_is_the_files():
    data = module()
    assert wasm_lint.parse(data).nbytes == len(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not a WebAssembly module"),
        (b"\x7fELF\x02\x01\x01\x00", "is not a WebAssembly module"),
        (b"\0asm\x02\0\0\0", "is not a WebAssembly module"),
        (MAGIC + b"\x02", "ends too early"),
        (MAGIC + b"\x02\x05\x01", "a part of 5 bytes does not fit"),
        (MAGIC + b"\x02\x80\x80\x80\x80\x80\x01", "more than 32 bits"),
        (MAGIC + b"\x02\xff\xff\xff\xff\x7f", "more than 32 bits"),
        (MAGIC + b"\x02\x05\xff\xff\xff\xff\x0f", "a list of 4294967295 items does not fit"),
        (MAGIC + section(2, imported("env", "x", 9)), "9 is not a kind"),
        (MAGIC + section(2, b"\x01\xff" + text("x") + b"\x00\x00"), "a name is not UTF-8"),
        (MAGIC + section(5, b"\x04\x01"), "4 is not a kind of limits"),
        (MAGIC + section(5, b"\x03\x01\x02"), "3 is not a kind of limits"),
        (MAGIC + section(5, b"\x01\x05\x04"), "impossible limits"),
        (MAGIC + section(5, b"\x00" + leb(65537)), "impossible limits"),
        (MAGIC + b"\x07\x03\x00ab", "longer than what it holds"),
    ],
)
def test_damage_is_told(data, problem):
    with pytest.raises(WasmFormatError) as caught:
        wasm_lint.parse(data, "model.wasm")
    assert problem in caught.value.what
    assert caught.value.what.startswith("model.wasm")
    assert caught.value.remedy


@given(st.integers(0, len(module())))
def test_no_cut_passes_for_a_library_unnoticed(length):
    data = module(imports=(imported("env", "TVMFFIWasmSafeCall"),))[:length]
    try:
        found = wasm_lint.parse(data)
    except WasmFormatError:
        return
    # A cut between two sections leaves a well-formed module that lacks something.
    assert not (found.exports and found.memories)


@given(st.binary())
@example(b"\x01" * 64)
def test_any_bytes_give_a_module_or_a_clean_error(tail):
    for data in (tail, MAGIC + tail, *(MAGIC + bytes([n]) + leb(len(tail)) + tail for n in (2, 5, 7))):
        with suppress(WasmFormatError):
            assert wasm_lint.parse(data).nbytes == len(data)


@given(st.data())
def test_a_changed_byte_gives_a_module_or_a_clean_error(data):
    good = bytearray(module(imports=(imported("env", "TVMFFIWasmSafeCall"),)))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with suppress(WasmFormatError):
        assert wasm_lint.parse(bytes(good)).nbytes == len(good)
