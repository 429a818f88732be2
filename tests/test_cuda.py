"""CUDA kernels: found compilers, named architectures, and what each compiler makes of a kernel."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
from exports import weights
from native_libraries import program

from engine import cuda, hosts, module_blob
from engine.artifacts import binaries, native
from engine.backends.base import Folders
from engine.backends.embedded import EmbeddedBackend
from engine.cuda import Compiler
from engine.embedded.compile import compile_library
from engine.embedded.native import cuda as kernels
from engine.embedded.native import shared
from engine.errors import StageError, ToolchainError, UsageError
from engine.module_blob import SYMBOL, Blob, Module
from engine.plan import ExportPlan
from engine.run.fingerprint import fingerprint

NVRTC = Compiler(kind="nvrtc")
HAS_NVRTC = pytest.mark.skipif(sys.platform == "darwin", reason="NVIDIA has no CUDA for macOS")
KERNEL = """
#include <cuda_fp16.h>
extern "C" __global__ void twice(half* x) { x[0] = __float2half(2.0f * __half2float(x[0])); }
"""
# Writes what it was asked for, and stops as nvcc does without a host compiler where it is told to.
NVCC = """
import sys
from pathlib import Path
text = Path(sys.argv[-1]).read_text()
if "fails" in text:
    sys.exit("kernels.cu(1): error: identifier fails is undefined")
Path(sys.argv[sys.argv.index("-o") + 1]).write_text(" ".join(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without NVIDIA's programs; what a test puts into the folder is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("CUDA_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


@HAS_NVRTC
def test_nvcc_comes_before_nvrtc(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.compiler() == NVRTC
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "toolkit"))
    toolkit = program(tmp_path / "toolkit" / "bin", "nvcc", NVCC)
    assert cuda.compiler() == Compiler(kind="nvcc", path=toolkit)
    nvcc = program(machine, "nvcc", NVCC)
    assert cuda.compiler() == Compiler(kind="nvcc", path=nvcc)


def test_another_compiler_or_architecture_is_another_result(machine: Path, tmp_path: Path) -> None:
    """Of a stage that was finished: which compiler it was, of what release, for which GPU."""
    plan = ExportPlan(
        source="model", quantization="q4f16_1", output=tmp_path / "out", device="cuda", compile=True
    )
    folders = Folders(source=tmp_path, output=tmp_path / "out")
    folders.config.parent.mkdir()
    folders.config.write_text("{}")

    def print_(wanted: ExportPlan = plan) -> str:
        [command] = [c for c in EmbeddedBackend().commands(wanted, folders) if c.stage == "compile"]
        return fingerprint([command], folders)

    def nvcc(release: str) -> None:
        program(machine, "nvcc", f"print('Cuda compilation tools, release {release}')")

    def gpu(capability: str) -> None:
        program(machine, "nvidia-smi", f"print('{capability}')")

    seen = [print_()]
    for change in (
        lambda: nvcc("12.4, V12.4.131"),
        lambda: nvcc("12.8, V12.8.93"),
        lambda: gpu("8.9"),
        lambda: gpu("9.0"),
    ):
        change()
        assert print_() == print_()
        seen.append(print_())
    assert len(set(seen)) == len(seen)
    named = dataclasses.replace(plan, cuda_arch="compute_75")
    before = print_(named)
    gpu("12.0")
    assert print_(named) == before, "the GPU here does not matter where an architecture is named"
    other = dataclasses.replace(plan, device="opencl")
    before = print_(other)
    nvcc("13.0")
    assert print_(other) == before


def test_without_either_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, package: str | None = None) -> object:
        return None if name.partition(".")[0] == "cuda" else original(name, package)

    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ToolchainError, match="nvcc or NVRTC") as caught:
        cuda.compiler()
    assert all(wheel in caught.value.remedy for wheel in cuda.NVRTC_WHEELS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sm_89", ("sm_89",)),
        ("89", ("sm_89",)),
        ("compute_75", ("compute_75",)),
        ("70, 75,90a,compute_120", ("sm_70", "sm_75", "sm_90a", "compute_120")),
        ("80,sm_80", ("sm_80",)),
        ("auto", ("compute_75",)),
    ],
)
def test_architectures(text: str, expected: tuple[str, ...]) -> None:
    assert cuda.architectures(text) == expected


@pytest.mark.parametrize(
    "text", ["", "turing", "sm_", "sm_89;sm_90", "89,", "sm89", "rtx_4090", "compute_7.5"]
)
def test_no_architecture(text: str) -> None:
    with pytest.raises(UsageError, match="--cuda-arch"):
        cuda.architectures(text)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("print('8.9')", "sm_89"),
        ("print('12.0\\n8.6')", "sm_120"),
        ("print('[N/A]')", None),
        (
            "import sys; sys.exit('NVIDIA-SMI has failed because it could not communicate with the driver')",
            None,
        ),
    ],
)
def test_the_architecture_of_the_gpu_that_is_here(machine: Path, says: str, expected: str | None) -> None:
    program(machine, "nvidia-smi", says)
    assert cuda.device_architecture() == expected
    assert cuda.architectures("auto") == (expected or cuda.PORTABLE,)


@HAS_NVRTC
def test_nvrtc_compiles_without_a_gpu() -> None:
    form, code = kernels.compile_source(KERNEL, NVRTC, ["compute_75"])
    assert form == "ptx"
    assert b".target sm_75" in code
    assert b".entry twice" in code
    assert code.endswith(b"\0")
    form, code = kernels.compile_source(KERNEL, NVRTC, ["sm_80"])
    assert form == "cubin"
    assert code.startswith(b"\x7fELF")


@HAS_NVRTC
def test_nvrtc_says_what_is_wrong() -> None:
    with pytest.raises(StageError, match="did not compile") as caught:
        kernels.compile_source("__global__ void f() { nonsense; }", NVRTC, ["sm_80"])
    assert "nonsense" in caught.value.why
    with pytest.raises(StageError, match="did not compile") as caught:
        kernels.compile_source(KERNEL, NVRTC, ["sm_999"])
    assert "architecture" in caught.value.remedy
    with pytest.raises(UsageError, match="one architecture at a time"):
        kernels.compile_source(KERNEL, NVRTC, ["sm_80", "sm_90"])


@pytest.mark.parametrize(
    ("architectures", "form", "flags"),
    [
        (["compute_75"], "ptx", "--ptx -arch=compute_75"),
        (["sm_86"], "cubin", "--cubin -gencode=arch=compute_86,code=sm_86"),
        (["sm_80", "compute_90"], "fatbin", "--fatbin -gencode=arch=compute_80,code=sm_80 "
         "-gencode=arch=compute_90,code=compute_90"),
    ],
)  # fmt: skip
def test_nvcc_is_asked_for_each_form(machine: Path, architectures: list[str], form: str, flags: str) -> None:
    nvcc = Compiler(kind="nvcc", path=program(machine, "nvcc", NVCC))
    made, code = kernels.compile_source(KERNEL, nvcc, architectures)
    assert made == form
    assert code.decode().startswith(f"{flags} -std=c++17 -o kernels.{form} kernels.cu")
    assert code.endswith(b"\0") == (form == "ptx")
    with pytest.raises(StageError, match="nvcc, exit code 1") as caught:
        kernels.compile_source("fails", nvcc, architectures)
    assert "identifier fails is undefined" in caught.value.why


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "aarch64-linux-gnu", "x86_64-windows-msvc"])
def test_packed_modules_are_found_behind_their_symbol(tmp_path: Path, triple: str) -> None:
    host = hosts.parse(triple)
    tree = (2).to_bytes(8, "little") + bytes(16) + bytes(8)
    packed = Blob(tree=tree, modules=(Module(kind="cuda", data=b"x" * 5000),)).packed()
    made = kernels._object_of(packed, host, tmp_path)
    output = tmp_path / f"library{host.suffix}"
    shared.linker(host)(str(output), [made])
    [found] = binaries.read(output)
    assert found.architecture == host.architecture
    assert found.exported == {SYMBOL}
    assert module_blob.parse(found.defined[SYMBOL]).modules[0].data == b"x" * 5000


@HAS_NVRTC
def test_bfloat16_has_a_gpu_form(tmp_path: Path) -> None:
    """No GPU language has it, so TVM writes it as integers; NVIDIA's compiler takes what comes out."""
    output = tmp_path / "model-cuda.so"
    compile_library(weights("llama", "q4bf16_1"), output, device="cuda", cuda_arch="sm_80")
    assert "cuda kernels as cubin" in str(native.read(output))


def test_the_remedy_installs_into_this_environment() -> None:
    assert cuda.INSTALL_NVRTC.startswith(Path(sys.executable).name)
