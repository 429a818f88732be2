"""engine.explain: failures that users meet, by the very lines in which they meet them."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner_stand_ins import StandIn
from runner_support import ended, failure, finish, plan_for

from engine import errors
from engine.backends.base import shell_line
from engine.catalog import TARGETS
from engine.events import Output
from engine.explain import KNOWN, Finding, Matcher, is_noise, log_file
from engine.explain.known import GAP, Known
from engine.explain.match import QUOTED, _Text
from tui import cli
from tui.widgets.log_lines import severity

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


def found(lines: Iterable[str]) -> list[Finding]:
    matcher = Matcher()
    matcher.feed(list(lines))
    return matcher.findings()


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "line"), LINES)
def test_a_failure_is_known_by_its_line(code: str, line: str) -> None:
    findings = found(["before it", line, "after it"])
    assert [finding.known.code for finding in findings] == [code]
    assert (findings[0].number, findings[0].line, findings[0].count) == (2, line.strip(), 1)


def test_every_failure_has_its_lines_here() -> None:
    codes = [known.code for known in KNOWN]
    assert len(codes) == len(set(codes))
    assert set(codes) == {code for code, _ in LINES}


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.code)
def test_a_row_is_told_in_full(known: Known) -> None:
    for text in (known.title, known.cause, known.remedy):
        assert text
        assert "  " not in text
        assert "—" not in text
    assert known.title.endswith(".")
    assert known.cause.endswith(".")
    assert set(known.targets) <= set(TARGETS)
    assert issubclass(known.error, errors.WizardError)
    # A log that has our own words in it, as that of a run has, means nothing more by them.
    assert not found([known.title, known.cause, known.remedy])


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_harmless_is_no_cause_and_looks_like_it(line: str) -> None:
    assert is_noise(line)
    assert severity(line) == "noise"
    assert not found([line, f"{line} Killed  "])


def test_an_error_is_no_noise() -> None:
    assert not any(is_noise(line) for _, line in LINES)


# --- the order -----------------------------------------------------------------------------------


def test_what_stands_last_comes_first_and_symptoms_come_last() -> None:
    lines = [
        "ModuleNotFoundError: No module named 'tvm'",
        "OSError: [Errno 28] No space left on device",
        "Not found: No available device detected",
        "ModuleNotFoundError: No module named 'tvm'",
        "RuntimeError: Cannot find compilation output, compilation failed",
    ]
    told = [(f.known.code, f.number, f.count) for f in found(lines)]
    assert told == [
        ("tvm-missing", 4, 2),
        ("disk-full", 2, 1),
        ("compilation-without-output", 5, 1),
        ("no-device-detected", 3, 1),
    ]


def test_of_one_line_what_says_more_comes_first() -> None:
    line = "exit code 137: RuntimeError: Cannot find wasm_runtime.bc; searched []"
    assert [f.known.code for f in found([line])] == ["wasm-runtime-missing", "out-of-memory"]


def test_a_symptom_is_no_cause() -> None:
    matcher = Matcher()
    matcher.feed(["Not found: No available device detected"])
    assert matcher.cause() is None
    assert matcher.findings()


# --- the search ----------------------------------------------------------------------------------

TEXTS = [_Text(known, text) for known in KNOWN for text in known.texts]


class Counting(str):
    """A line that counts how often it is searched."""

    __slots__ = ("searches",)
    searches: int

    def find(self, *args: object) -> int:
        self.searches = getattr(self, "searches", 0) + 1
        return super().find(*args)  # type: ignore[arg-type]


@given(st.sampled_from(TEXTS), st.integers(1, 200), st.booleans(), st.booleans())
def test_no_line_is_searched_more_often_than_a_text_has_parts(
    text: _Text, times: int, almost: bool, backwards: bool
) -> None:
    """Lines made to be nearly what is looked for cost one pass for each part, however long they are."""
    parts = [part[:-1] if almost else part for part in text.parts]
    line = Counting("".join(reversed(parts) if backwards else parts) * times)
    text.stands_in(line)
    assert line.searches <= len(text.parts)


@given(st.sampled_from(TEXTS), st.data())
def test_a_gap_is_anything_and_the_order_counts(text: _Text, data: st.DataObject) -> None:
    pieces = st.sampled_from([*text.parts, " ", "x", "'"])
    line = "\n" + "".join(data.draw(st.lists(pieces, max_size=8))) + "\n"
    told = re.search(".*?".join(map(re.escape, text.parts)), line, re.DOTALL)
    assert text.stands_in(line) == (told is not None)


@given(st.lists(st.sampled_from([line for _, line in LINES] + list(HARMLESS) + ["", "x"])), st.data())
def test_batches_do_not_matter(lines: list[str], data: st.DataObject) -> None:
    matcher, rest = Matcher(), list(lines)
    while rest:
        size = data.draw(st.integers(0, len(rest)))
        matcher.feed(rest[:size])
        rest = rest[size:]
        if size == 0:
            matcher.feed(rest[:1])
            rest = rest[1:]
    assert matcher.findings() == found(lines)
    assert matcher.lines == len(lines)


def test_no_text_has_an_empty_part() -> None:
    """Such a part would be found everywhere."""
    assert all(part.strip() for text in TEXTS for part in text.parts)
    assert all(len(text.needle) >= 6 for text in TEXTS)
    assert GAP == "…"


# --- logs ----------------------------------------------------------------------------------------


def explain(*arguments: str) -> int:
    return cli.main(["explain", *arguments])


def test_a_log_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "build.log"
    log.write_text(
        "one\n\x1b[31mValueError\x1b[0m: Unknown model type: t5. Available ones: ['llama']\nKilled\n"
    )
    assert explain(str(log)) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{log}:3: Killed\n  The system ended the process")
    assert f"\n{log}:2: ValueError: Unknown model type: t5." in told.out
    assert "\x1b" not in told.out
    assert "2 known failures in 3 lines, the most likely cause first." in told.err


def test_json_has_a_finding_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    log = tmp_path / "build.log"
    log.write_text("No module named 'tvm'\nFunction ffi.GetKwargsObject not found\n")
    assert explain("--json", str(log)) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["code"], first["line"], first["count"]) == ("mismatched-packages", 2, 1)
    assert first["text"] == "Function ffi.GetKwargsObject not found"
    assert first["why"]
    assert first["remedy"]
    assert (second["code"], second["symptom"], second["targets"]) == ("tvm-missing", False, [])


def test_a_log_without_a_known_failure_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "build.log"
    log.write_text("all is well\n\n")
    assert explain(str(log)) == 1
    told = capsys.readouterr()
    assert not told.out
    assert "No known failure in 2 lines.\nThe last one: all is well\n" in told.err
    log.write_text("")
    assert explain(str(log), "--json") == 1
    assert capsys.readouterr() == ("", "No known failure in 0 lines.\n")


def test_a_symptom_is_told_with_a_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "build.log"
    log.write_text("Not found: No available device detected\n" * 3)
    assert explain(str(log)) == 0
    told = capsys.readouterr().out
    assert "(3 times, this is the last)" in told
    assert "Perhaps: " in told


@pytest.mark.parametrize("make", ["missing", "folder", "binary"])
def test_what_is_no_log_is_refused(make: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    if make == "folder":
        path.mkdir()
    elif make == "binary":
        path.write_bytes(b"\x7fELF\x02\x01\0\0" * 100)
    assert explain(str(path)) == 2
    told = capsys.readouterr()
    assert not told.out
    assert "is not text" in told.err if make == "binary" else "There is no file" in told.err


def test_the_folder_of_an_export_is_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlc-wizard.log").write_text("Killed\n")
    assert explain(str(tmp_path)) == 0
    assert "Killed" in capsys.readouterr().out


def test_standard_input_is_a_log() -> None:
    command = [sys.executable, "-m", "tui", "explain", "-"]
    text = "No module named 'tvm'\n" + "x" * 200_000 + "\nKilled"
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0
    assert "stdin:3: Killed" in done.stdout
    assert "stdin:1: No module named 'tvm'" in done.stdout


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_shells_write(encoding: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("größer\r\nKilled\r\n", encoding=encoding)
    assert [line for batch in log_file.read(str(log)) for line in batch] == ["größer", "Killed"]


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n")),
    size=st.integers(1, 9),
)
def test_lines_are_whole_however_they_are_read(
    text: str, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("logs") / "log"
    log.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_file, "CHUNK", max(size, 4))
        read = [line for batch in log_file.read(str(log)) for line in batch]
    expected = text.removeprefix("\ufeff").split("\n")
    assert read == (expected[:-1] if expected[-1] == "" else expected)


def test_a_line_of_any_length_takes_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        for _ in range(4):
            stream.write(b"y" * (1 << 20))
        stream.write(b"\nKilled\n")
    lines = [line for batch in log_file.read(str(log)) for line in batch]
    assert [len(line) for line in lines] == [log_file.LONGEST, len("Killed")]
    assert [(f.known.code, f.number) for f in found(lines)] == [("out-of-memory", 2)]


def test_an_error_behind_a_progress_bar_is_seen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\r 10%|#   |\r 20%|##  |No module named 'tvm'\r 30%|### |\n")
    assert [f.known.code for f in found(line for batch in log_file.read(str(log)) for line in batch)] == [
        "tvm-missing"
    ]


# --- runs ----------------------------------------------------------------------------------------

MISMATCH = "ValueError: Parameter not found in source: lm_head.q_weight"


def printing(*lines: str, code: int = 1) -> str:
    """A program that prints `lines`, without having them in its own text, which stands in the log too."""
    hidden = "\n".join(lines).encode().hex()
    return f"print(bytes.fromhex({hidden!r}).decode())\nraise SystemExit({code})"


def test_a_stage_that_fails_in_a_known_way(
    tmp_path: Path, stand_in: Callable[..., StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_for(tmp_path)
    events = finish(plan, backend=stand_in(convert_weight=printing(MISMATCH, "Aborted")))
    told = failure(events)
    assert (
        told.what
        == "convert_weight failed: The weights are not those of the model that config.json describes."
    )
    assert told.why.endswith(f"\n{QUOTED}{MISMATCH}")
    assert "Merge the adapter" in told.remedy
    assert "mlc-wizard.log" in told.remedy
    assert ended(events).exit_code == 2
    # The log quotes the line once more; the finding is where the stage said it.
    assert explain(str(plan.output)) == 0
    (place, *_), lines = capsys.readouterr().out.splitlines(), (plan.output / "mlc-wizard.log").read_text()
    number = 1 + next(n for n, line in enumerate(lines.splitlines()) if line.endswith(MISMATCH))
    assert place.startswith(f"{plan.output / 'mlc-wizard.log'}:{number}: ")
    assert "times" not in place


def test_the_stage_knows_best(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    """Its own words win over what its lines look like."""
    code = (
        f"import sys; print({MISMATCH!r})\n"
        'sys.stderr.write("\\x1e" + \'{"error": {"what": "Its own words.", "exit_code": 3}}\' + "\\n")\n'
        "raise SystemExit(3)"
    )
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=code)))
    assert told.what == "Its own words."


@pytest.mark.parametrize(
    "line",
    [
        "Not found: No available device detected",  # a symptom
        "./x: emcc: command not found",  # not in this stage
        "INFO auto_device.py:91: Not found device: rocm:0",  # noise
    ],
)
def test_what_cannot_be_the_cause_is_not_told_as_it(
    line: str, tmp_path: Path, stand_in: Callable[..., StandIn]
) -> None:
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=printing(line, "The end."))))
    assert told.what == "convert_weight failed with exit code 1."
    assert told.why == "Its last line: The end."


def test_a_stage_that_succeeds_may_print_anything(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    from runner_stand_ins import CONVERT

    events = finish(plan_for(tmp_path), backend=stand_in(convert_weight=f"print({MISMATCH!r})\n{CONVERT}"))
    assert ended(events).exit_code == 0


def test_a_log_of_ours_is_no_failure(tmp_path: Path) -> None:
    """A real export with a library: nothing that its stages and its log say is a known failure."""
    plan = plan_for(tmp_path, device="cpu", compile=True)
    events = finish(plan)
    assert ended(events).exit_code == 0
    said = [line for event in events if isinstance(event, Output) for line in event.lines]
    assert said
    assert not found(said)
    assert explain(str(plan.output)) == 1
    assert shell_line(["engine.embedded", "compile"]) in (plan.output / "mlc-wizard.log").read_text()
