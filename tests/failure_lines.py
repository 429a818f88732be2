"""Lines in which users meet the known failures of engine.explain, and lines that are harmless."""

LINES = (
    ("wasm-runtime-missing", "RuntimeError: Cannot find libraries: wasm_runtime.bc"),
    ("wasm-runtime-missing", "RuntimeError: Cannot find wasm_runtime.bc; searched ['/x/web/dist/wasm']"),
    ("wasm-runtime-missing", "RuntimeError: Cannot find library: mlc_wasm_runtime.bc"),
    ("wasm-runtime-missing", "RuntimeError: Cannot find tvmjs_support.bc; searched ['/x/web/dist/wasm']"),
    ("webllm-version", "Error: Cannot find global function tvmjs.runtime.ArrayConcat"),
    (
        "webllm-version",
        "Error: Cannot find global function vm.builtin.apply_presence_and_frequency_penalty",
    ),
    ("webllm-version", "Error: Cannot find global function vm.builtin.ndarray_cache.get"),
    (
        "wasm-link",
        'Init error, LinkError: WebAssembly.instantiate(): Import #6 module="wasi_snapshot_preview1" '
        'function="proc_exit": function import requires a callable',
    ),
    (
        "wasm-link",
        'LinkError: WebAssembly.instantiate(): Import #0 module="env" '
        'function="_ZN3tvm7runtime15NVTXScopedRangeD1Ev": function import requires a callable',
    ),
    (
        "wheel-not-found",
        "ERROR: Could not find a version that satisfies the requirement mlc-ai-nightly (from versions: none)",
    ),
    ("wheel-not-found", "ERROR: No matching distribution found for mlc-llm-nightly-cpu"),
    (
        "mismatched-packages",
        "  what():  TypeAttr `__ffi_repr__` is already registered for type index 130. To update the stored",
    ),
    ("mismatched-packages", "AttributeError: Function ffi.GetKwargsObject not found"),
    (
        "mismatched-packages",
        "AttributeError: module 'tvm.ir._ffi_api' has no attribute 'RegisterOpAttr'",
    ),
    (
        "mismatched-packages",
        "OSError: libmlc_llm_module.so: undefined symbol: _ZN3tvm7runtime9BacktraceB5cxx11Ev",
    ),
    ("mismatched-packages", "OSError: /x/libmlc_llm.so: undefined symbol: _ZNK3tvm4Type6Equals"),
    ("mismatched-packages", "AttributeError: module 'tvm.dlight.gpu' has no attribute 'LowBatchGEMV'"),
    (
        "mismatched-packages",
        "TypeError: PagedKVCache.attention_with_fused_qkv() missing 1 required positional argument: "
        "'sm_scale'",
    ),
    ("tvm-missing", "ModuleNotFoundError: No module named 'tvm'"),
    ("emcc-missing", "FileNotFoundError: [Errno 2] No such file or directory: 'emcc'"),
    ("emcc-missing", "./build.sh: line 7: emcc: command not found"),
    ("wasm-runtime-headers", "fatal error: 'tvm/runtime/object.h' file not found"),
    ("wasm-runtime-headers", "wasm_runtime.cc:30:10: fatal error: 'tvm/ffi/any.h' file not found"),
    ("wasm-runtime-headers", "fatal error: 'tvm/runtime/c_runtime_api.h' file not found"),
    ("unknown-model-type", "ValueError: Unknown model type: gemma3. Available ones: ['llama', 'mistral']"),
    ("not-authorized", "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://x/y"),
    ("not-authorized", "huggingface_hub.errors.GatedRepoError: 403 Client Error."),
    ("not-authorized", "Cannot access gated repo for url https://huggingface.co/google/gemma-3-270m-it."),
    ("not-authorized", "remote: Password authentication in git is no longer supported. You must use a token"),
    (
        "git-clone-failed",
        "subprocess.CalledProcessError: Command '['git', 'clone', 'https://x', '.tmp']' returned non-zero "
        "exit status 128.",
    ),
    (
        "lfs-pointer",
        "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
    ),
    ("lfs-pointer", "_pickle.UnpicklingError: invalid load key, 'v'."),
    ("parameters-mismatch", "ValueError: The following extern parameters do not exist in the weight files:"),
    ("parameters-mismatch", "ValueError: Parameter not found in model: lora.down"),
    ("parameters-mismatch", "ValueError: Parameter not found in source: lm_head.q_weight"),
    ("parameters-mismatch", "KeyError: 'lm_head.weight'"),
    (
        "parameters-mismatch",
        "ValueError: Parameter lm_head.weight has shape [32001, 64], but expected [32000, 64]",
    ),
    (
        "both-windows",
        "WindowSizeConfigurationError: Only one of context_window_size and sliding_window_size can be "
        "positive. Got: context_window_size: 4096, sliding_window_size: 512",
    ),
    (
        "buffer-size",
        "TypeError: Failed to execute 'createBuffer' on 'GPUDevice': Failed to read the 'size' property from",
    ),
    (
        "buffer-size",
        "        'GPUBufferDescriptor': Value is outside the 'unsigned long long' value range.",
    ),
    ("wasm-initial-memory", "wasm-ld: error: initial memory too small, 68588928 bytes needed"),
    (
        "shader-f16",
        "ShaderF16SupportError: This model requires WebGPU extension shader-f16, which is not enabled in "
        "this browser.",
    ),
    ("nan-logits", "InternalError: Check failed: (false) is false: Possibly prob distribution contains NAN."),
    (
        "conv-template",
        "mlc_llm gen_config: error: argument --conv-template: invalid choice: 'gemma' (choose from",
    ),
    ("conv-template", "error: the following arguments are required: --conv-template"),
    ("conv-template", "ValueError: Unknown conversation template: gemma"),
    (
        "conv-template",
        "1 validation error for MLCChatConfig conv_template Input should be an object",
    ),
    ("conv-template", "conv_template"),
    (
        "device-lost",
        "DeviceLostError: The WebGPU device was lost while loading the model. This issue often occurs due to "
        "running out of memory (OOM).",
    ),
    (
        "windows-dll",
        r"FileNotFoundError: Could not find module 'E:\env\Lib\site-packages\tvm\tvm.dll' (or one of its "
        "dependencies). Try using the full path with constructor syntax.",
    ),
    ("windows-dll", "OSError: [WinError 1114] A dynamic link library (DLL) initialization routine failed"),
    ("windows-crash", "Process finished with exit code 3221225477"),
    ("windows-crash", "mlc_llm.exe ended: 0xC0000005"),
    (
        "macos-library",
        "OSError: dlopen(/x/libmlc_llm_module.dylib, 0x0006): Library not loaded: @rpath/libtvm.dylib",
    ),
    (
        "macos-rosetta",
        "ImportError: dlopen(/x/a.so, 0x0002): tried: '/x/a.so' (mach-o file, but is an incompatible "
        "architecture (have 'arm64', need 'x86_64'))",
    ),
    (
        "metal-compiler",
        'xcrun: error: unable to find utility "metal", not a developer tool or in PATH',
    ),
    (
        "metal-compiler",
        "error: error: cannot execute tool 'metal' due to missing Metal Toolchain; use: xcodebuild "
        "-downloadComponent MetalToolchain",
    ),
    (
        "glibc-too-old",
        "ImportError: /lib/x86_64-linux-gnu/libm.so.6: version `GLIBC_2.28' not found (required by /x)",
    ),
    ("glibc-too-old", "OSError: libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by libtvm.so)"),
    ("renamed-manifest", "FileNotFoundError: [Errno 2] No such file or directory: '/m/ndarray-cache.json'"),
    ("renamed-manifest", "TypeError: Failed to execute 'add' on 'Cache': Request failed"),
    ("old-commands", "/usr/bin/python3: No module named mlc_llm.build"),
    ("old-commands", "bash: mlc_chat: command not found"),
    ("old-commands", "mlc_llm: error: unrecognized arguments: --prefill_chunk_size 1024"),
    (
        "old-library",
        "RuntimeError: Binary was created using {relax.Executable} but a loader of that name is not "
        "registered.",
    ),
    (
        "old-library",
        "RuntimeError: Library binary was created using {relax.VMExecutable} but a loader of that name is "
        "not registered. Make sure",
    ),
    (
        "old-library",
        "InternalError: Check failed: (x) is false: Invalid VM file format in the magic section.",
    ),
    (
        "no-device-detected",
        "[2026-07-23 10:00:00] INFO auto_device.py:34: Not found: No available device detected",
    ),
    ("no-device", "ValueError: Device is not found on your local environment: cuda"),
    ("no-device", "ValueError: No target detected from device: auto. Please specify explicitly"),
    ("gpu-memory", "Insufficient GPU memory error: The available single GPU memory is 5000.000 MB, which is"),
    ("out-of-memory", "Killed"),
    ("out-of-memory", "2026-07-23 10:00:00+00:00 convert_weight: Killed"),
    ("out-of-memory", "build.sh: line 3:  4242 Killed                  mlc_llm convert_weight"),
    ("out-of-memory", "subprocess.CalledProcessError: Command 'x' died with <Signals.SIGKILL: 9>."),
    ("out-of-memory", "Error: Process completed with exit code 137."),
    (
        "android-toolchain",
        "RuntimeError: Require environment variable TVM_NDK_CC to be the NDK standalone compiler",
    ),
    ("android-toolchain", 'Environment variable "ANDROID_NDK" is required but not found.Please follow'),
    ("android-toolchain", "ERROR: JAVA_HOME is not set and no 'java' command could be found in your PATH."),
    (
        "compilation-without-output",
        "RuntimeError: Cannot find compilation output, compilation failed",
    ),
    ("phone-memory", "OpenCL Error, code=-61: CL_INVALID_BUFFER_SIZE"),
    ("vulkan-loader", "InternalError: Check failed: (__e == VK_SUCCESS): vkCreateInstance"),
    ("vulkan-loader", "Vulkan not found"),
    ("heap-at-exit", "free(): invalid pointer"),
    (
        "rope-theta-missing",
        "TypeError: Qwen3Config.__init__() missing 1 required positional argument: 'rope_theta'",
    ),
    ("docker-platform", "qemu: uncaught target signal 11 (Segmentation fault) - core dumped"),
    ("docker-platform", "exec /usr/bin/python3: exec format error"),
    ("docker-platform", "rosetta error: failed to open elf at /lib64/ld-linux-x86-64.so.2"),
    (
        "docker-daemon",
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    ),
    (
        "docker-daemon",
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct "
        "and if the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory",
    ),
    (
        "docker-daemon",
        "error during connect: in the default daemon configuration on Windows, the docker client must be run "
        "with elevated privileges to connect: open //./pipe/docker_engine: The system cannot find the file "
        "specified.",
    ),
    (
        "docker-daemon",
        "Error response from daemon: Docker Desktop is manually paused. Unpause it through the Whale menu or "
        "Dashboard.",
    ),
    (
        "docker-permission",
        "docker: permission denied while trying to connect to the Docker daemon socket at "
        'unix:///var/run/docker.sock: Head "http://%2Fvar%2Frun%2Fdocker.sock/_ping": dial unix '
        "/var/run/docker.sock: connect: permission denied.",
    ),
    (
        "docker-permission",
        "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
    ),
    ("docker-died", "error waiting for container: unexpected EOF"),
    ("docker-died", 'time="2023-06-06T06:44:14Z" level=error msg="error waiting for container: EOF"'),
    (
        "docker-died",
        "error waiting for container: read unix @->/run/docker.sock: read: connection reset by peer",
    ),
    ("docker-died", "ERRO[0127] error getting events from daemon: EOF"),
    ("docker-image", "Unable to find image 'mlc-compiler:latest' locally"),
    ("docker-image", "docker: Error response from daemon: No such image: mlc-compiler:latest."),
    ("docker-image", "Error: No such object: mlc-compiler"),
    ("docker-image", "Error: mlc-compiler: image not known"),
    (
        "docker-image",
        "docker: Error response from daemon: pull access denied for mlc-compiler, repository does not exist "
        "or may require 'docker login': denied: requested access to the resource is denied.",
    ),
    (
        "docker-pull",
        'Error response from daemon: Get "https://registry-1.docker.io/v2/": net/http: request canceled '
        "while waiting for connection (Client.Timeout exceeded while awaiting headers)",
    ),
    (
        "docker-pull",
        "ERROR: failed to solve: python:3.12-slim: failed to resolve source metadata for "
        "docker.io/library/python:3.12-slim: failed to copy: httpReadSeeker: failed open",
    ),
    ("docker-pull", "dial tcp: lookup registry-1.docker.io on 127.0.0.53:53: server misbehaving"),
    ("docker-pull", "toomanyrequests: You have reached your unauthenticated pull rate limit."),
    ("docker-mounts", "docker: Error response from daemon: Mounts denied: "),
    (
        "docker-mounts",
        "The path /Applications/x is not shared from the host and is not known to Docker.",
    ),
    (
        "docker-mounts",
        'docker: Error response from daemon: invalid mount config for type "bind": bind source path does not '
        "exist: /x.",
    ),
    (
        "docker-mounts",
        "docker: Error response from daemon: error while creating mount source path '/opt/x': mkdir /opt/x: "
        "read-only file system.",
    ),
    (
        "docker-disk",
        "docker: Error response from daemon: failed to create task: write /var/lib/docker/tmp/x: no space "
        "left on device",
    ),
    (
        "docker-foreign-image",
        "docker: Error response from daemon: failed to create task for container: failed to create shim "
        "task: OCI runtime create failed: runc create failed: unable to start container process: exec: "
        '"run": executable file not found in $PATH: unknown.',
    ),
    (
        "docker-name",
        'docker: Error response from daemon: Conflict. The container name "/mlc-wizard-1-compile" is already '
        'in use by container "4c01db0b339c". You have to remove (or rename) that container.',
    ),
    (
        "browser-limits",
        "Error: Cannot initialize runtime because of requested maxComputeWorkgroupStorageSize exceeds limit. "
        "requested=32768, limit=16384.",
    ),
    (
        "browser-limits",
        "Error: Cannot initialize runtime because of requested maxStorageBuffersPerShaderStage exceeds",
    ),
    (
        "browser-limits",
        "Error: Cannot initialize runtime because of requested maxStorageBufferBindingSize exceeds limit.",
    ),
    (
        "browser-limits",
        "Error: Cannot initialize runtime because of requested maxBufferSize exceeds limit. requested=256MB",
    ),
    ("webllm-tokenizer", "UnsupportedTokenizerFilesError: Cannot handle tokenizer files tokenizer.bin"),
    (
        "webllm-model-id",
        "ModelNotFoundError: Cannot find model record in appConfig for my-model. Please check",
    ),
    ("webllm-integrity", "IntegrityError: Integrity verification failed for https://x/params_shard_0.bin"),
    (
        "webllm-tools",
        "UnsupportedModelIdError: functiongemma is not supported for ChatCompletionRequest.tools. Currently,",
    ),
    ("disk-full", "OSError: [Errno 28] No space left on device"),
    ("system-lib-prefix", "Cannot find system lib with my_model, please make sure you set model_lib field"),
    ("wrong-suffix", '    assert output.suffix == ".wasm"'),
)
HARMLESS = (
    "Set native vector bits to be 128 for `wasm32`",
    "WARNING auto_target.py:150: --system-lib-prefix is not specified when building a static library",
    "INFO auto_device.py:91: Not found device: rocm:0",
    "INFO gen_config.py:174: Not found tokenizer config: /m/tokenizer.model",
)
