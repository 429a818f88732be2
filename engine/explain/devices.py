"""Failures of compilers and runtimes of a device: GPUs, phones, their toolchains."""

from engine.errors import ToolchainError, UsageError
from engine.explain.known import Known

DEVICES = (
    Known(
        code="no-device",
        title="mlc_llm was to find a device by itself, and found none.",
        texts=(
            "ValueError: Device is not found on your local environment: ",
            "ValueError: No target detected from device: ",
        ),
        cause="This machine has no GPU that the installed TVM can use.",
        remedy="Name it: --device cpu for convert_weight, and for compile the device that the library is "
        "for.",
        error=UsageError,
        backends=("mlc_llm", "docker"),
    ),
    Known(
        code="no-device-detected",
        title="mlc_llm found no GPU on this machine.",
        texts=("Not found: No available device detected",),
        cause="Harmless where the device was named; with --device auto what follows can fail on it.",
        remedy="Name it: --device cpu for convert_weight, and for compile the device that the library is "
        "for.",
        symptom=True,
    ),
    Known(
        code="gpu-memory",
        title="The GPU has too little memory for weights, temporaries and KV cache.",
        texts=("Insufficient GPU memory error: ",),
        cause="The KV cache grows with the context, temporaries with the prefill chunk.",
        remedy="A smaller context or chunk (context.context_window_size = 2048, "
        "context.prefill_chunk_size = 512), or fewer bits.",
    ),
    Known(
        code="nan-logits",
        title="The model's logits are not numbers: there is nothing to sample from.",
        texts=("Possibly prob distribution contains NAN",),
        cause="Activations above 65504 become infinite in float16; Gemma 3 reaches that.",
        remedy="Choose q4f32_1 or q0f32, or a bf16 quantization on CUDA. Libraries of the embedded "
        "backend compute activations in float32 under every quantization.",
    ),
    Known(
        code="old-library",
        title="The model library is of another version than the runtime that loads it.",
        texts=(
            "inary was created using {relax.Executable} but a loader of that name is not registered",
            "inary was created using {relax.VMExecutable} but a loader of that name is not registered",
            "inary was created using {…} but a loader of that name is not registered",
            "Invalid VM file format",
        ),
        cause="The form of compiled models changes with TVM; a library fits the runtime of its time.",
        remedy="Compile it again, every stage, with the versions that will run it.",
    ),
    Known(
        code="system-lib-prefix",
        title="The app does not find the model's library in itself.",
        texts=(
            "Cannot find system lib with ",
            "ValidationError: model_lib=",
        ),
        cause="The name of model_lib is not the prefix that the library was compiled with, hyphens aside.",
        remedy="Compile with --system-lib-prefix of exactly that name, - written as _, and an _ at its end.",
        targets=("iphone", "android"),
    ),
    Known(
        code="metal-compiler",
        title="The Metal compiler is not found.",
        texts=(
            'unable to find utility "metal", not a developer tool or in PATH',
            "cannot execute tool 'metal' due to missing Metal Toolchain",
            'unable to find utility "metallib"',
        ),
        cause="It comes with the full Xcode, not with the command line tools; since Xcode 26 it is a "
        "download of its own.",
        remedy="sudo xcode-select --switch /Applications/Xcode.app && xcodebuild -downloadComponent "
        "MetalToolchain",
        error=ToolchainError,
        targets=("metal", "iphone"),
    ),
    Known(
        code="android-toolchain",
        title="A part of the Android toolchain is not found.",
        texts=(
            "Require environment variable TVM_NDK_CC",
            'Environment variable "ANDROID_NDK" is required but not found',
            "JAVA_HOME is not set",
            "JAVA_HOME is set to an invalid directory",
        ),
        cause="TVM_NDK_CC, ANDROID_NDK and JAVA_HOME must name the NDK's clang, the NDK and a JDK.",
        remedy="export ANDROID_NDK=<NDK> "
        "TVM_NDK_CC=$ANDROID_NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android24-clang "
        "JAVA_HOME=<JDK>, all as absolute paths, MLC_LLM_SOURCE_DIR too.",
        error=ToolchainError,
        targets=("android",),
    ),
    Known(
        code="compilation-without-output",
        title="A compilation inside mlc_llm failed, and it says no more.",
        texts=("Cannot find compilation output, compilation failed",),
        cause="mlc_llm compiles in a child of its own; the reason stands above this line.",
        remedy="Look for the first error above. For Android, paths in MLC_LLM_SOURCE_DIR and TVM_NDK_CC "
        "must be absolute.",
        symptom=True,
    ),
    Known(
        code="phone-memory",
        title="The phone refuses the memory that the model wants.",
        texts=("CL_INVALID_BUFFER_SIZE", "CL_MEM_OBJECT_ALLOCATION_FAILURE", "EXC_RESOURCE …MEMORY"),
        cause="One buffer, or all together, is larger than the system allows an app.",
        remedy="A smaller context and chunk (context.context_window_size = 768, "
        "context.prefill_chunk_size = 128), fewer bits, and on iOS the entitlement "
        "com.apple.developer.kernel.increased-memory-limit.",
        targets=("iphone", "android"),
    ),
    Known(
        code="vulkan-loader",
        title="Vulkan is not found.",
        texts=("Vulkan not found", "vkCreateInstance", "Could NOT find Vulkan"),
        cause="The loader or the driver is not installed; WSL has none.",
        remedy="sudo apt install libvulkan1 vulkan-tools (conda: conda install -c conda-forge "
        "libvulkan-loader), then: vulkaninfo --summary",
        error=ToolchainError,
        targets=("vulkan",),
    ),
)
