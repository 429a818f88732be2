"""Libraries for other devices than browsers: of the right format, with what MLC's engine looks up."""

import dataclasses
import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from exports import weights
from native_libraries import MADE, MODEL, PREFIXES, QUANTIZATION, library, program

from engine import artifacts, hosts
from engine.artifacts import binaries, generation, native
from engine.catalog import TARGETS, host_of
from engine.embedded.compile import compile_library
from engine.embedded.native import metal, ndk, shared, static
from engine.errors import StageError, ToolchainError, UsageError
from engine.module_blob import EXECUTABLE_KIND, LIBRARY_KIND, SYMBOL

FORMATS = {"linux": "ELF", "android": "ELF", "macos": "Mach-O", "ios": "Mach-O", "windows": "PE"}


@pytest.fixture(autouse=True)
def without_compilers_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found is what a test puts there; NVRTC is a package, found without PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in (
        "CUDA_PATH",
        "CUDA_HOME",
        "TVM_NDK_CC",
        "ANDROID_NDK",
        "ANDROID_NDK_HOME",
        "ANDROID_NDK_ROOT",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", MADE)
def test_the_library_is_what_its_device_asks_for(name: str) -> None:
    device, host, _ = MADE[name]
    target, where = TARGETS[device], host_of(TARGETS[device], host)
    found = native.read(library(name))
    assert native.problems(found, target, host=where, prefix=PREFIXES.get(device, "")) == []
    assert {b.format for b in found.binaries} == {FORMATS[where.system]}
    assert {b.architecture for b in found.binaries} == {where.architecture}
    assert all(b.shared != target.static for b in found.binaries)
    kernels = [m for m in found.modules if m.kind not in (EXECUTABLE_KIND, LIBRARY_KIND)]
    assert [m.kind for m in kernels] == ([target.kernels] if target.kernels else [])
    # The function of the runtime that reports errors is the least that kernels' checks call.
    assert "TVMFFIErrorSetRaisedFromCStrParts" in {w for b in found.binaries for w in b.wanted}
    metadata = found.metadata
    assert (metadata["model_type"], metadata["quantization"]) == (MODEL, QUANTIZATION)
    assert {"prefill", "decode", "embed"} <= metadata["memory_usage"].keys()


@pytest.mark.parametrize("name", PREFIXES)
def test_a_static_library_has_its_symbols_under_its_prefix(name: str) -> None:
    """`mlc_llm package` looks for model_lib + ___tvm_ffi__library_bin.

    A prefix of up to seven letters is kept inside TVM in another way than longer ones: both are here.
    """
    prefix = PREFIXES[name]
    objects = binaries.read(library(name))
    assert len(objects) == 2
    exported = {symbol for o in objects for symbol in o.exported}
    assert f"{prefix.removesuffix('_')}___tvm_ffi__library_bin" in exported
    functions = {symbol for symbol in exported if "tvm_ffi_" in symbol}
    assert len(functions) > 20
    assert all(symbol.startswith((prefix, f"__tvm_ffi_{prefix}")) for symbol in functions)
    assert "TVMFFIEnvModRegisterSystemLibSymbol" in {symbol for o in objects for symbol in o.wanted}


def test_the_same_objects_make_the_same_archive(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("b.o", "a.o")]
    for name in names:
        Path(name).write_bytes(name.encode())
    static.pack(str(tmp_path / "one.tar"), names)
    os.utime(names[0], (0, 0))
    static.pack(str(tmp_path / "two.tar"), names[::-1])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert {(m.mtime, m.uid, m.uname) for m in archive} == {(0, 0, "")}


def test_sources_of_kernels_keep_to_what_every_gpu_has() -> None:
    """256 threads and 32 KiB of shared memory, as CUDA's source declares them."""
    [module] = [m for m in native.read(library("android")).modules if m.kind == "opencl"]
    source = module.data.decode("utf-8", errors="replace")
    assert source.count("__kernel void") > 20
    declared = [int(n) for n in re.findall(r"__local (?:float|half|int|uint) \w+\[(\d+)\]", source)]
    assert declared
    assert 4 * max(declared) <= 32768


def test_a_portable_library_for_this_machine_generates() -> None:
    """Named as a host, this machine gets what runs on any of its kind; it is run like its own."""
    if str(hosts.here()) != "x86-64 Linux":
        pytest.skip("another machine than the one that was named")
    checks = {check.name: check for check in artifacts.verify(library("x86-64 Linux").parent)}
    assert checks["library"].passed
    assert "ELF x86-64 shared library" in checks["library"].found
    assert checks["generation"].passed


def test_a_library_for_an_older_processor_is_one(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without AVX its vectors are of another width, and float16 is widened by arithmetic."""
    if str(hosts.here()) != "x86-64 Linux":
        pytest.skip("another machine than the one that is named")
    path = copied / "model-cpu.so"
    compile_library(copied, path, device="cpu", host="x86_64-linux-gnu -mcpu=x86-64-v2")
    compiled = json.loads(capsys.readouterr().out)
    assert compiled == {
        "library": "model-cpu.so",
        "host": "x86_64-unknown-linux-gnu",
        "processor": "x86-64-v2",
    }
    checks = {check.name: check for check in artifacts.verify(copied)}
    assert checks["generation"].passed, checks["generation"].found
    with pytest.raises(UsageError, match="-mcpu=x86-64-v9 is no processor") as caught:
        compile_library(copied, path, device="cpu", host="x86_64-linux-gnu -mcpu=x86-64-v9")
    assert "x86-64-v2" in caught.value.why


@pytest.mark.skipif(sys.platform != "linux", reason="a library that is made for Linux")
def test_a_library_for_a_better_processor_is_not_run(copied: Path) -> None:
    """An instruction that no processor has stands for one that this processor lacks."""
    trap = {"x86_64": "ud2", "aarch64": "udf #0"}[hosts.here().architecture]
    source = f'__attribute__((constructor)) static void start(void) {{ __asm__("{trap}"); }}'
    (copied / "trap.c").write_text(source)
    shared.zig(("cc", "-target", hosts.here().zig, "-shared", "trap.c", "-o", "model-cpu.so"), copied)
    told = {"library": "model-cpu.so", "processor": "sierraforest"}
    config = json.loads((copied / "mlc-chat-config.json").read_text(encoding="utf-8"))
    why = generation.why_not(copied, copied / "model-cpu.so", config, foreign=False, compiled=told)
    assert "made for sierraforest, has instructions that this processor" in why


@pytest.mark.parametrize("name", ["AArch64 Linux", "Windows", "metal", "iphone", "cuda"])
def test_what_cannot_be_run_is_checked_and_not_claimed(name: str) -> None:
    if name == "AArch64 Linux" and hosts.here().architecture == "aarch64":
        pytest.skip("this machine")
    path = library(name)
    checks = {check.name: check for check in artifacts.verify(path.parent, path.name)}
    assert [name for name, check in checks.items() if not check.passed] == []
    assert "generation" not in checks
    assert f"metadata of {MODEL} {QUANTIZATION}" in checks["library"].found


def failing(path: Path) -> str:
    [check] = [c for c in artifacts.verify(path.parent, path.name) if c.name == "library"]
    assert not check.passed
    return check.found


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """An export without a library, to put one into."""
    return shutil.copytree(
        weights(MODEL, QUANTIZATION), tmp_path / "export", ignore=shutil.ignore_patterns("model-*")
    )


@pytest.mark.parametrize(
    ("name", "called", "said"),
    [
        ("metal", "model-cpu.so", "is Mach-O, not ELF"),
        ("cuda", "model-cpu.so", "its kernels are for cuda, not for the processor"),
        ("AArch64 Linux", "model-opencl.so", "its kernels are for none, not for opencl"),
        ("Windows", "model-metal.so", "is PE, not Mach-O"),
        ("iphone", "model-android.tar", "is Mach-O, not ELF"),
        ("cuda", "model-toaster.so", "named after no device"),
    ],
)
def test_a_library_of_something_else(copied: Path, name: str, called: str, said: str) -> None:
    path = Path(shutil.copy(library(name), copied / called))
    assert said in failing(path)


@pytest.mark.parametrize("name", ["x86-64 Linux", "macOS", "Windows", "android"])
@pytest.mark.parametrize("share", [0.001, 0.4, 0.98])
def test_a_library_that_was_cut_short(copied: Path, name: str, share: float) -> None:
    whole = library(name)
    path = copied / whole.name
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert failing(path)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"host": "x86_64-unknown-linux-gnu"}, "is code for AArch64 processors, not x86-64"),
        ({"host": "arm64-apple-macos11.0"}, "is ELF, not Mach-O"),
        ({"host": "pdp11-unix"}, "--host pdp11-unix is not"),
    ],
)
@pytest.mark.parametrize("where", ["receipt", "run"])
def test_a_library_is_held_to_the_host_that_it_was_made_for(
    copied: Path, where: str, told: dict[str, str], said: str
) -> None:
    """Of Linux on two processors both are model-cpu.so: what compile told says which one it has to be."""
    path = Path(shutil.copy(library("AArch64 Linux"), copied))
    tell(copied, where, {"library": path.name, "host": "aarch64-unknown-linux-musl"})
    assert all(check.passed for check in artifacts.verify(copied, path.name) if check.name == "library")
    tell(copied, where, {"library": path.name, **told})
    assert said in failing(path)
    tell(copied, where, {"library": "model-opencl.so", **told})
    assert all(check.passed for check in artifacts.verify(copied, path.name) if check.name == "library")


def tell(export: Path, where: str, compiled: dict[str, str]) -> None:
    """As a receipt has it, or the state of a run that has not written its receipt yet."""
    if where == "receipt":
        (export / "export-receipt.json").write_text(json.dumps({"files": [], "library": compiled}))
    else:
        (export / ".mlc-wizard").mkdir(exist_ok=True)
        state = {"version": 1, "stages": {"compile": {"result": compiled}}}
        (export / ".mlc-wizard" / "state.json").write_text(json.dumps(state))


def test_an_archive_is_held_to_the_prefix_that_it_was_made_with(copied: Path) -> None:
    path = Path(shutil.copy(library("android"), copied))
    tell(copied, "receipt", {"library": path.name, "system_lib_prefix": PREFIXES["android"]})
    assert all(check.passed for check in artifacts.verify(copied, path.name) if check.name == "library")
    tell(copied, "receipt", {"library": path.name, "system_lib_prefix": "gemma_"})
    assert "not with 'gemma_'" in failing(path)


def test_without_a_receipt_it_is_held_to_what_its_device_has() -> None:
    """Mach-O says which of Apple's systems it is for; there is no iPhone with another processor."""
    mac, phone = (native.read(library(name)) for name in ("macOS", "iphone"))
    assert {b.system for b in mac.binaries} == {"macos"}
    assert any("is for macOS, not for iphone" in p for p in native.problems(mac, TARGETS["iphone"]))
    assert any("is for iOS, not for metal" in p for p in native.problems(phone, TARGETS["metal"]))
    metal_ = native.read(library("metal"))
    intel = dataclasses.replace(metal_, suffix=".dylib")
    assert any("AArch64 processors, not x86-64" in p for p in native.problems(intel, TARGETS["metal"]))
    first, second = native.read(library("android")).binaries
    fat = (first, dataclasses.replace(second, architecture="x86_64"))
    android = dataclasses.replace(native.read(library("android")), binaries=fat)
    assert native.problems(android, TARGETS["android"]) == ["its objects are for several processors"]


def test_a_library_for_another_processor_is_not_run(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if hosts.here().architecture == "aarch64":
        pytest.skip("this machine")
    shutil.copy(library("AArch64 Linux"), copied)
    assert all(check.passed for check in artifacts.verify(copied))
    assert "not run here: model-cpu.so is for AArch64 processors, this is x86-64" in capsys.readouterr().err


def test_a_library_of_another_model(copied: Path) -> None:
    path = Path(shutil.copy(library("metal"), copied))
    config = copied / "mlc-chat-config.json"
    document = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(document | {"quantization": "q4f16_2"}), encoding="utf-8")
    assert "compiled for quantization q4f16_1" in failing(path)
    config.write_text(json.dumps(document), encoding="utf-8")
    manifest = copied / "tensor-cache.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("model.norm.weight", "model.gone"))
    assert "it wants model.norm.weight" in failing(path)


def test_an_archive_whose_prefix_is_another(copied: Path) -> None:
    found = native.read(library("android"))
    android = TARGETS["android"]
    assert native.problems(found, android, prefix="gemma_") == [
        f"its symbols begin with '{PREFIXES['android']}', not with 'gemma_'"
    ]
    x86 = hosts.parse("x86_64-linux-android")
    assert "is code for AArch64 processors, not x86-64" in native.problems(found, android, host=x86)[0]


def test_an_archive_that_needs_what_nobody_supplies(tmp_path: Path, copied: Path) -> None:
    """As one whose second object was lost: its functions are undefined then."""
    path = copied / "model-android.tar"
    with tarfile.open(library("android")) as whole, tarfile.open(path, "w") as part:
        for member in whole:
            if "devc" not in member.name:
                part.addfile(member, whole.extractfile(member))
    assert f"it has 0 symbols that end in {SYMBOL}" in failing(path)


@pytest.mark.parametrize(
    ("device", "host", "output", "allowed"),
    [
        ("cpu", "x86_64-windows-msvc", "a.so", ".dll"),
        ("cpu", "arm64-apple-macos", "a.so", ".dylib"),
        ("cpu", "aarch64-linux-gnu", "a.tar", ".so"),
        ("metal", "arm64-apple-macos", "a.dylib", ".so"),
        ("metal", "x86_64-apple-macos", "a.so", ".dylib"),
        ("cuda", "x86_64-windows-msvc", "a.so", ".dll"),
        ("iphone", "auto", "a.dylib", ".tar"),
        ("android", "auto", "a", ".tar or .so"),
        ("webgpu", "auto", "a.so", ".wasm"),
    ],
)
def test_a_wrong_suffix_is_told_before_any_work(
    tmp_path: Path, device: str, host: str, output: str, allowed: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(f"ends in {allowed}, not in")) as caught:
        compile_library(weights(MODEL, QUANTIZATION), tmp_path / output, device=device, host=host)
    assert f"-o {tmp_path / 'a'}{allowed.partition(' ')[0]}" in caught.value.remedy


@pytest.mark.parametrize(
    ("flags", "error", "said"),
    [
        ({"device": "vulkan", "name": "a.so"}, ToolchainError, "Vulkan's code generator"),
        ({"device": "toaster", "name": "a.so"}, UsageError, "--device toaster is not a target"),
        ({"device": "webgpu", "name": "a.wasm", "host": "x86_64-linux-gnu"}, UsageError, "only auto is"),
        ({"device": "metal", "name": "a.so", "host": "x86_64-linux-gnu"}, UsageError, "cannot be made for"),
        ({"device": "iphone", "name": "a.tar", "prefix": "gemma"}, UsageError, "gemma_"),
        ({"device": "cuda", "name": "a.so", "cuda_arch": "turing"}, UsageError, "--cuda-arch turing"),
        ({"device": "android", "name": "a.so"}, ToolchainError, "Android NDK"),
    ],
)  # fmt: skip
def test_what_cannot_be_made(
    tmp_path: Path, flags: dict[str, str], error: type[Exception], said: str
) -> None:
    wanted = {key: value for key, value in flags.items() if key != "name"}
    with pytest.raises(error, match=re.escape(said)):
        compile_library(weights(MODEL, QUANTIZATION), tmp_path / flags["name"], **wanted)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*a.*"))


NDK = """
import subprocess, sys
from engine.embedded.wasm import toolchain
from pathlib import Path
here = Path(sys.argv[0]).parent
with toolchain.zig(["cc", "-target", "aarch64-linux-musl", "-nostdlib",
                    *(a for a in sys.argv[1:] if a != "-lm")], cwd=Path.cwd(), cache=here) as process:
    print(process.communicate()[0])
sys.exit(process.returncode)
"""


def test_with_an_ndk_android_gets_a_shared_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler here is zig, which links the same objects as an NDK's clang."""
    with tarfile.open(library("android")) as archive:
        archive.extractall(tmp_path / "objects", filter="data")
    objects = [str(path) for path in (tmp_path / "objects").iterdir()]
    output = tmp_path / "model-android.so"
    monkeypatch.setenv("TVM_NDK_CC", str(program(tmp_path / "ndk", "clang", NDK)))
    ndk.link(str(output), objects)
    [found] = binaries.read(output)
    assert (found.format, found.architecture, found.shared) == ("ELF", "aarch64", True)
    output.unlink()
    broken = program(tmp_path / "ndk", "broken", "import sys; sys.exit('no sysroot')")
    monkeypatch.setenv("TVM_NDK_CC", str(broken))
    with pytest.raises(StageError, match="no sysroot"):
        ndk.link(str(output), objects)
    assert not list(tmp_path.glob("*model-android*"))


def test_an_ndk_is_found_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolchainError, match="none is named here"):
        ndk.compiler()
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    with pytest.raises(ToolchainError, match="no C compiler for Android"):
        ndk.compiler()
    folder = tmp_path / "toolchains" / "llvm" / "prebuilt"
    system = {"darwin": "darwin-x86_64", "win32": "windows-x86_64"}.get(sys.platform, "linux-x86_64")
    clang = program(folder / system / "bin", "aarch64-linux-android24-clang", "")
    assert ndk.compiler() == clang
    monkeypatch.setenv("TVM_NDK_CC", "absent-clang")
    with pytest.raises(ToolchainError, match="absent-clang"):
        ndk.compiler()


def test_metal_kernels_are_compiled_where_xcode_is(tmp_path: Path) -> None:
    compiled, source = (native.read(library(name)) for name in ("iphone", "metal"))
    assert "metal kernels as metallib" in str(compiled)
    [module] = [m for m in compiled.modules if m.kind == "metal"]
    assert module.data.count(b"MTLB of a kernel") > 20
    assert b"kernel void" not in module.data
    assert "metal kernels as source" in str(source)
    program(tmp_path / "bin", "xcrun", "import sys; sys.exit('unable to find utility metal')")
    assert metal.compiler("macosx") is None


def test_a_metal_kernel_that_does_not_compile(tmp_path: Path) -> None:
    program(
        tmp_path / "bin",
        "xcrun",
        "import sys; sys.exit(0 if '--version' in sys.argv else 'error: no type half')",
    )
    compiler = metal.compiler("iphoneos")
    assert compiler is not None
    with pytest.raises(StageError, match="no type half"):
        compiler("kernel void f() {}")
