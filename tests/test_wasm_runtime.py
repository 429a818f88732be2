"""The wasm runtime: the cache it is kept in, its build, and the link with what TVM exports."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tvm
from tvm import relax
from tvm.script import tirx as T
from tvm.target import Target

from engine import wasm_lint
from engine.embedded.wasm import build, cache, link, toolchain, units
from engine.embedded.wasm.units import Unit
from engine.errors import StageError, ToolchainError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def cache_root(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The compiled runtime, from the user's cache: minutes where this version is new to the machine."""
    return build.runtime()


# The cache


def fill_with(text: str, calls: list[str] | None = None):
    def fill(folder: Path) -> None:
        if calls is not None:
            calls.append(text)
        (folder / "part").mkdir()
        (folder / "part" / "a.o").write_text(text)
        (folder / "b.a").write_text(text)

    return fill


def test_an_entry_is_filled_once(cache_root):
    calls: list[str] = []
    first = cache.entry("kind", "key", fill_with("one", calls))
    assert first == cache_root / "kind" / "key"
    assert cache.entry("kind", "key", fill_with("two", calls)) == first
    assert calls == ["one"]
    assert (first / "part" / "a.o").read_text() == "one"


def flip_a_byte(folder: Path) -> None:
    (folder / "part" / "a.o").write_text("onf")


def cut_short(folder: Path) -> None:
    (folder / "part" / "a.o").write_text("on")


def lose_a_file(folder: Path) -> None:
    (folder / "b.a").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / cache.MANIFEST).unlink()


def garble_the_manifest(folder: Path) -> None:
    (folder / cache.MANIFEST).write_text("[1, 2")


def empty_the_manifest(folder: Path) -> None:
    (folder / cache.MANIFEST).write_text("null")


@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, cut_short, lose_a_file, lose_the_manifest, garble_the_manifest, empty_the_manifest],
)
def test_a_damaged_entry_is_made_again(cache_root, damage):
    folder = cache.entry("kind", "key", fill_with("one"))
    damage(folder)
    calls: list[str] = []
    assert cache.entry("kind", "key", fill_with("two", calls)) == folder
    assert calls == ["two"]
    assert (folder / "part" / "a.o").read_text() == (folder / "b.a").read_text() == "two"


def test_a_failed_fill_leaves_nothing(cache_root):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ToolchainError("no compiler")

    with pytest.raises(ToolchainError, match="no compiler"):
        cache.entry("kind", "key", fail)
    assert [path.name for path in (cache_root / "kind").iterdir() if path.is_dir()] == []
    assert cache.entry("kind", "key", fill_with("one")).is_dir()


def test_a_cache_that_cannot_be_written_is_told(cache_root):
    cache_root.write_text("a file where the folder should be")
    with pytest.raises(StageError) as caught:
        cache.entry("kind", "key", fill_with("one"))
    assert str(cache_root) in caught.value.what
    assert cache.CACHE_VARIABLE in caught.value.remedy


def start(script: str, *arguments: Path | str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


SLOW_FILL = """
    import os, sys
    from pathlib import Path
    from engine.embedded.wasm import cache

    def fill(folder):
        (folder / "half").write_text("half")
        print("filling", flush=True)
        sys.stdin.readline()
        (folder / "whole").write_text("whole")

    print(cache.entry("kind", "key", fill), flush=True)
"""


def test_two_processes_fill_it_once(cache_root):
    processes = [start(SLOW_FILL), start(SLOW_FILL)]
    # Either may be the one that fills and waits for this line: both must have it before any is read.
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    folder = str(cache_root / "kind" / "key")
    assert sorted(outputs) == sorted([["filling", folder], [folder]])
    assert (cache_root / "kind" / "key" / "whole").is_file()


def test_killed_half_way_nothing_passes_for_finished(cache_root):
    dead = start(SLOW_FILL)
    assert dead.stdout is not None
    assert dead.stdout.readline() == "filling\n"
    dead.kill()
    dead.communicate(timeout=60)
    assert not (cache_root / "kind" / "key").exists()
    folder = cache.entry("kind", "key", fill_with("one"))
    assert sorted(path.name for path in folder.iterdir()) == ["b.a", cache.MANIFEST, "part"]
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["key"]


# The build


def unit(tmp_path: Path, name: str, code: str, driver: str = "c++") -> Unit:
    source = tmp_path / f"{name} source.txt"
    source.write_text(code)
    return Unit(name=name, sources=(source,), flags=(*units.TARGET, *units.EXCEPTIONS), driver=driver)


def compile_units(tmp_path: Path, chosen: Sequence[Unit], report: build.Report | None = None) -> Path:
    objects = tmp_path / "objects"
    objects.mkdir(exist_ok=True)
    build.run_jobs(build.unit_jobs(chosen, objects, tmp_path), tmp_path, report)
    return objects


def test_units_are_compiled_and_reported(tmp_path):
    heard: list[tuple[int, int, str]] = []
    chosen = [
        unit(tmp_path, "first", 'extern "C" int f() { throw 1; }'),
        unit(tmp_path, "second", "int g(void) { return 2; }", driver="cc"),
    ]
    objects = compile_units(tmp_path, chosen, lambda *args: heard.append(args))
    for name in ("00.o", "01.o"):
        assert (objects / name).read_bytes().startswith(wasm_lint.MAGIC)
    assert [(done, total) for done, total, _ in heard] == [(0, 2), (1, 2), (2, 2)]
    assert {name for _, _, name in heard[1:]} == {"first", "second"}


def test_a_compiler_error_is_shown_and_kept(tmp_path, cache_root):
    chosen = [
        unit(tmp_path, "good", "int f() { return 1; }"),
        unit(tmp_path, "bad", "int g() { return no_such_name; }"),
    ]
    with pytest.raises(ToolchainError) as caught:
        compile_units(tmp_path, chosen)
    assert "bad" in caught.value.what
    assert "no_such_name" in caught.value.why
    log = cache_root / build.KIND / "failed-build.log"
    assert str(log) in caught.value.remedy
    assert "no_such_name" in log.read_text()


def test_a_missing_source_is_named(tmp_path):
    lost = replace(unit(tmp_path, "lost", ""), sources=(tmp_path / "gone.cc",))
    with pytest.raises(ToolchainError, match=r"gone\.cc"):
        compile_units(tmp_path, [lost])


@pytest.mark.parametrize(("module", "distribution"), [("ziglang", "ziglang"), ("tvm_ffi", "apache-tvm-ffi")])
def test_a_missing_package_is_named(monkeypatch, module, distribution):
    find_spec = toolchain.importlib.util.find_spec
    monkeypatch.setattr(
        toolchain.importlib.util, "find_spec", lambda name: None if name == module else find_spec(name)
    )
    with pytest.raises(ToolchainError) as caught:
        toolchain.find()
    assert f"package {distribution} is not installed" in caught.value.what
    assert "pip install" in caught.value.remedy


def test_a_missing_compiler_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "_package", lambda *_names: tmp_path)
    with pytest.raises(ToolchainError, match="zig compiler is not in") as caught:
        compile_units(tmp_path, [unit(tmp_path, "any", "")])
    assert "pip install" in caught.value.remedy


def test_the_key_follows_versions_and_not_places(tmp_path):
    tools = toolchain.find()
    key = build.key(tools)
    assert build.key(replace(tools, tvm=tmp_path, tvm_ffi=tmp_path, zig_lib=tmp_path)) == key
    for name in tools.versions:
        assert build.key(replace(tools, versions={**tools.versions, name: "0"})) != key


def test_the_key_follows_our_sources_and_flags(tmp_path, monkeypatch):
    tools = toolchain.find()
    seen = {build.key(tools)}
    own = tmp_path / "own"
    monkeypatch.setattr(units, "OWN_SOURCES", own)
    monkeypatch.setattr(build, "OWN_SOURCES", own)
    own.mkdir()
    for text in ("int x;", "int y;"):
        (own / "a.cc").write_text(text)
        seen.add(build.key(tools))
    monkeypatch.setattr(units, "TARGET", (*units.TARGET, "-DX"))
    seen.add(build.key(tools))
    assert len(seen) == 4


def test_every_source_of_the_runtime_is_installed(tmp_path):
    chosen = units.runtime_units(toolchain.find(), toolchain.OWN_SOURCES)
    jobs = build.unit_jobs(chosen, tmp_path, tmp_path)
    assert len({job.name for job in jobs}) == len(jobs)


# The link


@pytest.fixture(scope="session")
def exported(runtime: Path, tmp_path_factory: pytest.TempPathFactory):
    """Compile a kernel of the given dtype for WebGPU and link it, through relax's own export."""

    def export(dtype: str, name: str = "model.wasm") -> Path:
        @T.prim_func(private=True)
        def double(x: T.Buffer((64,), dtype), y: T.Buffer((64,), dtype)):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
            for i in T.thread_binding(64, thread="threadIdx.x"):
                y[i] = x[i] + x[i]

        bb = relax.BlockBuilder()
        kernel = bb.add_func(double, "double")
        x = relax.Var("x", relax.TensorType((64,), dtype))
        with bb.function("main", [x]):
            bb.emit_func_output(bb.emit(relax.call_tir(kernel, [x], relax.TensorType((64,), dtype))))
        host = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"}
        target = Target({"kind": "webgpu"}, host=host)
        with target:
            executable = relax.build(bb.get(), target=target, system_lib=True)
        path = tmp_path_factory.mktemp("export") / name
        executable.export_library(str(path), fcompile=link.fcompile)
        return path

    return export


def test_an_exported_model_imports_only_what_webllm_supplies(exported):
    path = exported("float32")
    assert wasm_lint.lint(path) == []
    assert wasm_lint.required_features(path) == []
    module = wasm_lint.parse(path.read_bytes())
    assert {kind for _, _, kind in module.imports} == {"function"}
    assert set(module.exports) == {*wasm_lint.CALLED_EXPORTS, "_initialize", "memory"}
    assert module.memories[0].maximum is None


def test_a_half_precision_model_says_so(exported):
    assert wasm_lint.required_features(exported("float16")) == ["shader-f16"]


def test_an_export_is_the_same_everywhere(exported):
    first, second = exported("float32", "one.wasm"), exported("float32", "two.wasm")
    data = first.read_bytes()
    assert data == second.read_bytes()
    for place in (Path(tvm.__file__).parents[1], ROOT, Path.home() / ".cache", cache.root()):
        assert os.fsencode(place) not in data


def test_an_undefined_symbol_is_named_and_nothing_written(runtime, tmp_path):
    output = tmp_path / "model.wasm"
    output.write_text("of an earlier run")
    # Kept alive by a constructor: what nobody calls is not linked at all.
    keep = unit(tmp_path, "caller", "int no_such_symbol(); static int kept = no_such_symbol();")
    object_file = compile_units(tmp_path, [keep]) / "00.o"
    with pytest.raises(StageError) as caught:
        link.link([object_file], output)
    assert "no_such_symbol" in caught.value.why
    assert output.read_text() == "of an earlier run"


def test_an_unknown_import_is_refused(runtime, tmp_path):
    code = """
        __attribute__((import_module("env"), import_name("alert"))) extern "C" int alert();
        static int kept = alert();
    """
    object_file = compile_units(tmp_path, [unit(tmp_path, "caller", code)]) / "00.o"
    output = tmp_path / "model.wasm"
    with pytest.raises(StageError, match=r"env\.alert, which WebLLM does not supply"):
        link.link([object_file], output)
    assert not output.exists()
