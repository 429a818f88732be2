"""Failures of a finished library in WebLLM, as the browser's console tells them, and of its link."""

from engine.errors import ToolchainError
from engine.explain.known import Known

BROWSERS = (
    Known(
        code="webllm-version",
        title="The library was compiled for another version of WebLLM.",
        texts=(
            "Cannot find global function tvmjs.",
            "Cannot find global function vm.builtin.",
            "Cannot find function vm.builtin.",
            "Cannot find global function runtime.",
        ),
        cause="A library contains its own runtime, and WebLLM calls functions of it by names that change "
        "between versions.",
        remedy="Use the version of @mlc-ai/web-llm that the library was made for, or export again: "
        "libraries of mlc-wizard are for the version that its receipt names.",
        targets=("webgpu",),
    ),
    Known(
        code="wasm-link",
        title="The library asks the page for functions that WebLLM does not have.",
        texts=(
            "LinkError: WebAssembly.instantiate(): Import #",
            'module="wasi_snapshot_preview1"…function="proc_exit": function import requires a callable',
            'function="proc_exit": function import requires a callable',
            "function import requires a callable",
        ),
        cause="It was linked by an Emscripten newer than 3.1.56, or with parts missing; the linker does "
        "not complain.",
        remedy="./emsdk install 3.1.56 && ./emsdk activate 3.1.56, build the runtime and the library "
        "again. The embedded backend needs no Emscripten, and checks a library's imports: mlc-wizard "
        "verify DIR.",
        error=ToolchainError,
        targets=("webgpu",),
    ),
    Known(
        code="wasm-initial-memory",
        title="The library does not fit into the memory that its link reserves.",
        texts=("wasm-ld: error: initial memory too small, …bytes needed",),
        cause="Constants and tables of the model are larger than Emscripten's default.",
        remedy="Compile with a smaller chunk (context.prefill_chunk_size = 1024).",
        stages=("compile",),
        targets=("webgpu",),
    ),
    Known(
        code="both-windows",
        title="The model has a context window and a sliding window, and WebLLM allows one.",
        texts=("Only one of context_window_size and sliding_window_size can be positive",),
        cause="mlc_llm writes both for every Gemma 3, even with --sliding-window-size -1.",
        remedy='Set "sliding_window_size": -1 in mlc-chat-config.json, or in overrides of the '
        "ModelRecord. Exports of mlc-wizard have one of the two.",
        targets=("webgpu",),
    ),
    Known(
        code="buffer-size",
        title="A buffer is larger than the browser can describe.",
        texts=(
            "Failed to execute 'createBuffer' on 'GPUDevice': Failed to read the 'size' property",
            "Value is outside the 'unsigned long long' value range",
        ),
        cause="Temporaries grow with the prefill chunk, which without a flag is the whole context.",
        remedy="Compile again with a smaller chunk and context (context.prefill_chunk_size = 1024, "
        "context.context_window_size = 4096).",
        targets=("webgpu",),
    ),
    Known(
        code="shader-f16",
        title="The model needs the WebGPU feature shader-f16, and this browser or GPU does not have it.",
        texts=("This model requires WebGPU extension shader-f16", "ShaderF16SupportError"),
        cause="Quantizations with f16 in their name compute in float16.",
        remedy="Export with q4f32_1 or q0f32 (quantization.mode = q4f32_1).",
        targets=("webgpu",),
    ),
    Known(
        code="device-lost",
        title="The browser lost the GPU while it loaded the model.",
        texts=("The WebGPU device was lost while loading the model", "DeviceLostError"),
        cause="Its memory ran out, most often; a tab on iOS has about 1.5 GB.",
        remedy="A smaller context or chunk (context.context_window_size = 2048, "
        "context.prefill_chunk_size = 512), or fewer bits.",
        targets=("webgpu",),
    ),
    Known(
        code="browser-limits",
        title="The GPU offers less than WebLLM asks for.",
        texts=(
            "Cannot initialize runtime because of requested maxComputeWorkgroupStorageSize",
            "Cannot initialize runtime because of requested maxStorageBuffersPerShaderStage",
            "Cannot initialize runtime because of requested maxStorageBufferBindingSize",
            "Cannot initialize runtime because of requested maxBufferSize",
            "Unable to find a compatible GPU",
        ),
        cause="It wants 32 KiB of workgroup memory, 10 storage buffers in a shader, bindings of 128 MiB "
        "and buffers of 256 MiB at least.",
        remedy="Update browser and driver, and see https://webgpureport.org; another GPU is the other way.",
        targets=("webgpu",),
    ),
    Known(
        code="webllm-tokenizer",
        title="WebLLM finds no tokenizer that it can read.",
        texts=("Cannot handle tokenizer files", "UnsupportedTokenizerFilesError"),
        cause="It reads tokenizer.json or tokenizer.model, as tokenizer_files of mlc-chat-config.json "
        "lists them.",
        remedy="Save the tokenizer with transformers, which writes tokenizer.json, into the model's "
        "folder and run mlc-wizard again.",
        targets=("webgpu",),
    ),
    Known(
        code="webllm-model-id",
        title="WebLLM has no record of this model.",
        texts=("Cannot find model record in appConfig for", "ModelNotFoundError"),
        cause="The model_id that is loaded is not in model_list.",
        remedy="Put the record of export-receipt.json into appConfig.model_list, and load its model_id.",
        targets=("webgpu",),
    ),
    Known(
        code="webllm-integrity",
        title="A file is not the one whose hash the record names.",
        texts=("Integrity verification failed for ", "IntegrityError"),
        cause="It was exported again without its record, or damaged on its way.",
        remedy="Upload the export again, and take the record from its export-receipt.json.",
        targets=("webgpu",),
    ),
    Known(
        code="webllm-tools",
        title="WebLLM refuses tools for this model.",
        texts=("is not supported for ChatCompletionRequest.tools", "UnsupportedModelIdError"),
        cause="It allows them for a handful of model ids by name.",
        remedy="Write the tools into the prompt, in the form that the model was trained on.",
        targets=("webgpu",),
    ),
)
