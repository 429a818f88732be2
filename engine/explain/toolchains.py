"""Failures of an installation: packages that are missing, that do not fit, or that do not load."""

from engine.errors import ToolchainError
from engine.explain.known import Known

WHEELS = "python -m pip install --pre -U -f https://mlc.ai/wheels mlc-llm-nightly-cpu mlc-ai-nightly-cpu"
OWN_BACKEND = "Or use the embedded backend (engine.backend = embedded), which needs none of it."

TOOLCHAINS = (
    Known(
        code="wasm-runtime-missing",
        title="mlc_llm does not find its runtime for browsers, files whose names end in .bc.",
        texts=(
            "Cannot find libraries: wasm_runtime.bc",
            "Cannot find libraries: tvmjs_support.bc",
            "Cannot find libraries: webgpu_runtime.bc",
            "Cannot find wasm_runtime.bc; searched",
            "Cannot find tvmjs_support.bc; searched",
            "Cannot find webgpu_runtime.bc; searched",
            "Cannot find library: mlc_wasm_runtime.bc",
        ),
        cause="The wheels do not contain it; it is compiled from a checkout of mlc-llm, submodules included.",
        remedy="git clone --recursive https://github.com/mlc-ai/mlc-llm, run ./web/prep_emcc_deps.sh in "
        "it with Emscripten 3.1.56 active, then set MLC_LLM_SOURCE_DIR to the checkout, and both "
        f"TVM_SOURCE_DIR and TVM_HOME to its 3rdparty/tvm. {OWN_BACKEND}",
        error=ToolchainError,
        stages=("compile",),
        targets=("webgpu",),
    ),
    Known(
        code="wasm-runtime-headers",
        title="The runtime for browsers does not compile, because headers of TVM are missing.",
        texts=(
            "'tvm/runtime/object.h' file not found",
            "'tvm/runtime/c_runtime_api.h' file not found",
            "'tvm/ffi/any.h' file not found",
            "fatal error: 'tvm/…file not found",
        ),
        cause="The submodules of mlc-llm are missing, or TVM_SOURCE_DIR is a checkout of another revision.",
        remedy="git submodule update --init --recursive in the mlc-llm checkout, then export "
        f"TVM_SOURCE_DIR=<the checkout>/3rdparty/tvm and repeat. {OWN_BACKEND}",
        error=ToolchainError,
        targets=("webgpu",),
    ),
    Known(
        code="emcc-missing",
        title="Emscripten's compiler, emcc, is not found.",
        texts=(
            "No such file or directory: 'emcc'",
            "emcc: command not found",
            "emcc: not found",
            "'emcc' is not recognized",
        ),
        cause="It is not installed, or its environment is not active in this shell.",
        remedy="In the emsdk folder: ./emsdk install 3.1.56 && ./emsdk activate 3.1.56 && source "
        f"emsdk_env.sh. {OWN_BACKEND}",
        error=ToolchainError,
        stages=("compile",),
        targets=("webgpu",),
    ),
    Known(
        code="wheel-not-found",
        title="pip finds no wheel of MLC for this machine.",
        texts=(
            "Could not find a version that satisfies the requirement mlc-",
            "Could not find a version that satisfies the requirement mlc_",
            "No matching distribution found for mlc-",
            "No matching distribution found for mlc_",
        ),
        cause="The names end in -cpu, -cu128, -rocm62 and the like, the wheels are found with -f and not "
        "with --extra-index-url, and there are none for Linux on ARM.",
        remedy=f"python -m pip install -U pip, then {WHEELS}",
        error=ToolchainError,
    ),
    Known(
        code="mismatched-packages",
        title="The installed mlc_llm and TVM do not belong together.",
        texts=(
            "TypeAttr `__ffi_repr__` is already registered for type index",
            "TypeAttr `…` is already registered for type index",
            "Function ffi.GetKwargsObject not found",
            "module 'tvm.ir._ffi_api' has no attribute 'RegisterOpAttr'",
            "undefined symbol: _ZNK3tvm",
            "undefined symbol: _ZN3tvm",
            "has no attribute 'LowBatchGEMV'",
            "attention_with_fused_qkv() missing…'sm_scale'",
        ),
        cause="They are of different dates, or two copies of TVM are installed in one environment; "
        "apache-tvm and mlc-ai are two such copies.",
        remedy=f"In a new virtual environment, outside the mlc-llm checkout: {WHEELS}",
        error=ToolchainError,
    ),
    Known(
        code="tvm-missing",
        title="The Python that runs mlc_llm has no TVM.",
        texts=("No module named 'tvm'",),
        cause="The package mlc-ai, which brings it, was installed for another Python, or not at all.",
        remedy=f"With the same Python: {WHEELS}",
        error=ToolchainError,
    ),
    Known(
        code="windows-dll",
        title="Windows does not load tvm.dll.",
        texts=(
            r"Could not find module '…tvm.dll' (or one of its dependencies)",
            r"Could not find module '…tvm_runtime.dll' (or one of its dependencies)",
            "[WinError 1114]",
        ),
        cause="The file is there; a library that it needs is not, most often zstd, or the Visual C++ "
        "runtime.",
        remedy="conda install zstd, and install the Visual C++ Redistributable: "
        "https://aka.ms/vs/17/release/vc_redist.x64.exe",
        error=ToolchainError,
    ),
    Known(
        code="windows-crash",
        title="Windows ended the program for an access violation.",
        texts=("3221225477", "0xC0000005", "0xc0000005", "-1073741819"),
        cause="TVM on Windows can do that on its way out, when all files are written.",
        remedy="Check what was written: mlc-wizard verify DIR. If it passes, nothing is wrong.",
        symptom=True,
    ),
    Known(
        code="macos-library",
        title="macOS does not find TVM's library.",
        texts=("Library not loaded: @rpath/libtvm",),
        cause="mlc_llm and mlc-ai are not of the same date, or one of them is missing.",
        remedy=f"In a new virtual environment: {WHEELS}",
        error=ToolchainError,
    ),
    Known(
        code="macos-rosetta",
        title="This Python is for Intel, the library for Apple silicon, or the other way round.",
        texts=(
            "(mach-o file, but is an incompatible architecture (have 'arm64', need 'x86_64",
            "(mach-o file, but is an incompatible architecture (have 'x86_64', need 'arm64",
        ),
        cause="An Intel Python runs under Rosetta and installs packages for Intel.",
        remedy='See what runs with: python -c "import platform; print(platform.machine())". On Apple '
        "silicon it must print arm64: install Python from python.org, or an arm64 conda.",
        error=ToolchainError,
    ),
    Known(
        code="glibc-too-old",
        title="This Linux is older than the wheels.",
        texts=(
            "version `GLIBC_2.…' not found",
            "version `GLIBCXX_…' not found",
            "version `CXXABI_…' not found",
        ),
        cause="They need glibc 2.28 and a C++ library of its time or later.",
        remedy="Use a newer distribution, a container, or for GLIBCXX alone: conda install -c conda-forge "
        "libstdcxx-ng",
        error=ToolchainError,
    ),
    Known(
        code="heap-at-exit",
        title="The program crashed when it gave memory back at its end.",
        texts=("free(): invalid pointer",),
        cause="TVM was built without HIDE_PRIVATE_SYMBOLS, so its LLVM and that of PyTorch are mixed up.",
        remedy="Build TVM with set(HIDE_PRIVATE_SYMBOLS ON) in config.cmake, or use the wheels. What was "
        "written before may be whole: mlc-wizard verify DIR.",
        error=ToolchainError,
    ),
)
