"""Each probe, asked in this process, with stand-ins on a PATH of its own for every state of a tool."""

import dataclasses
import http.server
import json
import os
import platform
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import docker_stand_in
import pytest
from toolchain_stand_ins import bare_path, stand_in

from engine.backends.docker import inspection
from engine.backends.official.own_environment import FLAVOURS, flavours
from engine.embedded.wasm import build, cache, toolchain
from engine.shell import shell_line
from engine.toolchain import packages
from engine.toolchain.check import Found, check
from engine.toolchain.finding import Finding, from_json, to_json
from engine.toolchain.groups import mlc_llm as mlc_llm_group
from engine.toolchain.groups import python as python_group
from engine.toolchain.groups.emscripten import VERSION as EMSCRIPTEN
from engine.toolchain.groups.python import Interpreter
from engine.toolchain.probe import limited
from engine.toolchain.registry import BY_ID, PROBES

UNSET = (
    *("TVM_NDK_CC", "ANDROID_NDK", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "EMSDK"),
    *("TVM_SOURCE_DIR", "TVM_HOME", "MLC_LLM_SOURCE_DIR", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
)
RUBBISH = bytes(range(128, 256)) + b"\x00\x1b[31m\n\xff\xfe"
EMCC = f"emcc (Emscripten gcc/clang-like replacement + linker emulating GNU ld) {EMSCRIPTEN} (cf90417)\n"
CLANG = "Android (12027248) clang version 18.0.2\nTarget: aarch64-unknown-linux-android24\n"
NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 12.8, V12.8.93\n"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and file modes")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is all of PATH; nothing of this machine's settings counts."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("PATH", bare_path(folder))
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    return folder


def look(name: str, seconds: float = 60.0) -> Finding:
    """What the probe finds; it survives the way to the parent."""
    probe = BY_ID[name]
    with limited(seconds):
        finding = probe.look(probe)
    assert from_json(json.loads(json.dumps(to_json(finding)))) == finding
    assert (finding.id, finding.group, finding.title) == (probe.id, probe.group, probe.title)
    assert finding.status == "ok" or finding.remedy.told
    return finding


ANSWERS = [
    ("emcc", EMCC, "ok", EMSCRIPTEN),
    ("emcc", "emcc (Emscripten) 4.0.10 (cf90417)\n", "warn", "4.0.10"),
    ("emcc", "emcc (Emscripten) 2.0.2\n", "warn", "2.0.2"),
    ("node", "v22.11.0\n", "ok", "22.11.0"),
    ("node", "v12.22.9\n", "warn", "12.22.9"),
    ("git-lfs", "git-lfs/3.4.1 (GitHub; linux amd64; go 1.22.2)\n", "ok", "git-lfs/3.4.1"),
    ("nvcc", NVCC, "ok", "nvcc 12.8"),
    ("nvidia-smi", "NVIDIA H100 PCIe, 9.0, 550.54\n", "ok", "NVIDIA H100 PCIe (sm_90, driver 550.54)"),
    ("nvidia-smi", "A, 8.6, 1\nB, 8.9, 1\nC, 9.0, 1\n", "ok", "B (sm_89, driver 1) and 1 more"),
    ("nvidia-smi", "No devices were found\n", "broken", "no device"),
    ("xcrun", "Apple metal version 32023.620\n", "ok", "32023.620"),
]
PROBE_OF = {"nvcc": "cuda-compiler", "nvidia-smi": "cuda-driver", "xcrun": "metal"}
ASKED = ("emcc", "node", "git-lfs", "nvcc", "nvidia-smi", "xcrun")


@pytest.mark.parametrize(("name", "says", "status", "found"), ANSWERS)
def test_a_tool_that_answers(tools: Path, name: str, says: str, status: str, found: str) -> None:
    stand_in(tools, name, says)
    finding = look(PROBE_OF.get(name, name))
    assert finding.status == status
    assert found in finding.found


@pytest.mark.parametrize("name", ASKED)
def test_a_tool_that_is_missing(tools: Path, name: str) -> None:
    finding = look(PROBE_OF.get(name, name))
    without = "no nvcc" if name == "nvcc" else "not a Mac" if name == "xcrun" else f"{name} is not on PATH"
    if name == "xcrun" and sys.platform == "darwin":
        without = "xcrun is not on PATH"
    assert without in finding.found
    assert finding.status == "missing" or "NVRTC" in finding.found


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    ("says", "how", "told"),
    [
        ("something is wrong\n", {"code": 3}, "ended with exit code 3: something is wrong"),
        pytest.param("last words", {"dies": "SEGV"}, "crashed (SIGSEGV): last words", marks=POSIX),
        (RUBBISH, {"code": 1}, "ended with exit code 1"),
    ],
    ids=["fails", "crashes", "rubbish"],
)
def test_a_tool_that_fails(tools: Path, name: str, says: str | bytes, how: dict, told: str) -> None:
    stand_in(tools, name, says, **how)
    finding = look(PROBE_OF.get(name, name))
    assert f"{name} {told}".removesuffix(".cmd") in finding.found.replace(".cmd", "")
    assert finding.status == "broken" or "NVRTC" in finding.found
    assert finding.found.isprintable()


@pytest.mark.parametrize("name", ASKED)
def test_a_tool_that_answers_rubbish(tools: Path, name: str) -> None:
    """In no encoding, without a version, and yet with success."""
    stand_in(tools, name, RUBBISH)
    finding = look(PROBE_OF.get(name, name))
    assert finding.found.isprintable()
    assert finding.status != "missing" or name == "nvcc"
    if name in ("emcc", "node", "nvidia-smi"):
        assert finding.status == "broken"


@pytest.mark.parametrize("name", ASKED)
def test_a_tool_that_hangs(tools: Path, name: str) -> None:
    stand_in(tools, name, "so far, so good", hangs=True)
    finding = look(PROBE_OF.get(name, name), seconds=0.5)
    assert "does not answer within" in finding.found
    assert name in finding.found
    pid = tools / f"{name}.pid"
    if pid.exists():  # here it has no group of its own to end with; see test_toolchain_check.py
        os.kill(int(pid.read_text()), 9)


@POSIX
def test_a_tool_that_is_no_program(tools: Path) -> None:
    stand_in(tools, "emcc").write_bytes(b"\x7fELF garbage")
    finding = look("emcc")
    assert finding.status == "broken"
    assert "cannot be started" in finding.found


def test_emscripten_that_is_not_active(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "emsdk" / "upstream" / "emscripten").mkdir(parents=True)
    monkeypatch.setenv("EMSDK", str(tmp_path / "emsdk"))
    finding = look("emcc")
    assert finding.status == "missing"
    assert finding.remedy.commands == (f". {tmp_path / 'emsdk' / 'emsdk_env.sh'}",)


@pytest.mark.usefixtures("tools")
class TestTheRuntimeAsBitcode:
    """TVM looks below TVM_HOME, mlc_llm below MLC_LLM_SOURCE_DIR."""

    def variables(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *left_out: str) -> Path:
        tvm = folder / "3rdparty" / "tvm"
        tvm.mkdir(parents=True)
        places = {"MLC_LLM_SOURCE_DIR": folder, "TVM_SOURCE_DIR": tvm, "TVM_HOME": tvm}
        for name, place in places.items():
            if name not in left_out:
                monkeypatch.setenv(name, str(place))
        files = {folder: ("mlc_wasm_runtime.bc",), tvm: ("wasm_runtime.bc", "tvmjs_support.bc")}
        for place, names in files.items():
            (place / "web" / "dist" / "wasm").mkdir(parents=True)
            for name in names:
                (place / "web" / "dist" / "wasm" / name).write_bytes(b"BC")
        return tvm

    def test_all_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tvm = self.variables(tmp_path / "mlc", monkeypatch)
        assert "missing: webgpu_runtime.bc" in look("wasm-bitcode").found
        (tvm / "web" / "dist" / "webgpu_runtime.bc").write_bytes(b"BC")
        assert look("wasm-bitcode").status == "ok"

    def test_without_tvm_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.variables(tmp_path / "mlc", monkeypatch, "TVM_HOME")
        finding = look("wasm-bitcode")
        assert finding.status == "missing"
        assert "TVM_HOME is not set" in finding.found
        assert any("prep_emcc_deps.sh" in line for line in finding.remedy.commands)

    @pytest.mark.parametrize(("value", "told"), [("nowhere", "no folder"), (".", "not absolute")])
    def test_a_bad_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, told: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLC_LLM_SOURCE_DIR", value)
        finding = look("wasm-bitcode")
        assert finding.status == "broken"
        assert told in finding.found


class TestXcode:
    def test_the_whole_of_it(self, tools: Path) -> None:
        stand_in(tools, "xcode-select", "/Applications/Xcode.app/Contents/Developer\n")
        stand_in(tools, "xcodebuild", "Xcode 16.2\nBuild version 16C5032a\n")
        finding = look("xcode")
        assert finding.status == "ok"
        assert "Xcode 16.2" in finding.found

    def test_the_command_line_tools_alone(self, tools: Path) -> None:
        stand_in(tools, "xcode-select", "/Library/Developer/CommandLineTools\n")
        finding = look("xcode")
        assert finding.status == "missing"
        assert "command line tools alone" in finding.found
        assert "xcode-select --switch" in finding.remedy.commands[0]
        assert not finding.remedy.safe

    def test_a_metal_toolchain_that_was_not_fetched(self, tools: Path) -> None:
        text = "error: cannot execute tool 'metal' due to missing Metal Toolchain; use: xcodebuild -download"
        stand_in(tools, "xcrun", text, code=1)
        finding = look("metal")
        assert finding.status == "missing"
        assert finding.remedy.commands == ("xcodebuild -downloadComponent MetalToolchain",)

    def test_a_metal_that_is_in_no_folder(self, tools: Path) -> None:
        text = 'xcrun: error: unable to find utility "metal", not a developer tool or in PATH\n'
        stand_in(tools, "xcrun", text, code=72)
        assert look("metal").status == "missing"


class TestAndroid:
    def test_a_compiler_for_phones(self, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TVM_NDK_CC", str(stand_in(tools, "aarch64-linux-android24-clang", CLANG)))
        assert look("android-ndk").status == "ok"

    def test_a_compiler_for_something_else(self, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        says = CLANG.replace("aarch64-unknown-linux-android24", "x86_64-pc-linux-gnu")
        monkeypatch.setenv("TVM_NDK_CC", str(stand_in(tools, "clang", says)))
        finding = look("android-ndk")
        assert finding.status == "broken"
        assert "x86_64-pc-linux-gnu" in finding.found

    def test_a_compiler_that_is_not_there(self, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TVM_NDK_CC", str(tools / "gone"))
        assert look("android-ndk").status == "broken"

    @pytest.mark.usefixtures("tools")
    def test_a_kit_that_nobody_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
        finding = look("android-ndk")
        assert finding.status == "missing"
        assert str(tmp_path) in finding.remedy.commands[0]


class TestDocker:
    @pytest.fixture(autouse=True)
    def _forget(self) -> Iterator[None]:
        yield
        inspection.forget()

    def install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **behaviour: object) -> None:
        folder = docker_stand_in.install(tmp_path / "docker", **behaviour)
        monkeypatch.setenv("PATH", str(folder))
        inspection.forget()

    def test_a_client(self, tools: Path) -> None:
        stand_in(tools, "docker", "Docker version 28.2.2, build e6534b4\n")
        assert look("docker").found == "Docker version 28.2.2, build e6534b4"

    @pytest.mark.usefixtures("tools")
    def test_nothing_of_it(self) -> None:
        for name in ("docker", "docker-daemon", "docker-image", "docker-mlc_llm"):
            assert look(name).status == "missing"

    @POSIX
    def test_daemon_and_image_for_this_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        self.install(tmp_path, monkeypatch)
        assert look("docker-daemon").found == "Docker 28.3.2, amd64, 8.0 GiB"
        assert look("docker-image").found == "mlc-compiler, amd64, mlc-wizard 0.1.0"

    @POSIX
    def test_mlc_llm_in_the_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(tmp_path, monkeypatch)
        without = look("docker-mlc_llm")
        assert without.status == "missing"
        assert "MLC_LLM_WHEELS" in without.remedy.commands[0]
        assert without.blocks("docker", "vulkan")
        assert not without.blocks("docker", "webgpu")
        labels = docker_stand_in.IMAGE["Config"]["Labels"] | {inspection.MLC_LLM_LABEL: "mlc-llm-cpu"}  # type: ignore[index]
        self.install(tmp_path, monkeypatch, image={"Config": {"Labels": labels}})
        assert look("docker-mlc_llm").found == "mlc-llm-cpu, in mlc-compiler"

    @POSIX
    def test_an_image_for_another_processor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "arm64")
        self.install(tmp_path, monkeypatch, info={"Architecture": "aarch64"})
        finding = look("docker-image")
        assert finding.status == "broken"
        assert finding.blocks("docker", "cpu")
        assert not finding.blocks("docker", "webgpu")
        assert "--platform linux/arm64" in finding.remedy.commands[0]

    @POSIX
    def test_no_daemon_and_no_image(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(tmp_path, monkeypatch, image=None)
        assert look("docker-image").status == "missing"
        self.install(tmp_path, monkeypatch, fails={"info": [1, docker_stand_in.DOWN]})
        assert look("docker-daemon").status == "broken"
        assert look("docker-image").found.startswith("not known: Docker's daemon")


class TestMlcLlm:
    """What is found of it, test_official_interpreter.py tests; here, what the check makes of that."""

    @pytest.mark.usefixtures("tools")
    def test_nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own = tmp_path / "own"
        monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(own))
        monkeypatch.delenv("VIRTUAL_ENV", raising=False)
        finding = look("mlc_llm")
        assert finding.status == "missing"
        assert finding.remedy.environment == str(own)
        assert finding.remedy.safe == bool(flavours())
        elsewhere = finding.remedy.elsewhere(str(tmp_path / "other"))
        assert not any(str(own) in word for argv in elsewhere.runs for word in argv)

    @pytest.mark.parametrize(
        ("driver", "rocm", "wanted"),
        [
            ("", "", "cpu"),
            ("| NVIDIA-SMI 570.86   Driver Version: 570.86   CUDA Version: 12.8  |", "", "cu128"),
            ("| NVIDIA-SMI 580.65   Driver Version: 580.65   CUDA Version: 13.1  |", "", "cu130"),
            ("| NVIDIA-SMI 470.10   Driver Version: 470.10   CUDA Version: 11.4  |", "", "cpu"),
            ("no version at all", "6.1.3-122", "rocm61"),
            ("", "7.0.1", "rocm62"),
        ],
    )
    def test_the_build_for_this_machine(
        self, tools: Path, monkeypatch: pytest.MonkeyPatch, driver: str, rocm: str, wanted: str
    ) -> None:
        if driver:
            stand_in(tools, "nvidia-smi", driver)
        monkeypatch.setenv("ROCM_PATH", str(tools))
        (tools / ".info").mkdir()
        if rocm:
            (tools / ".info" / "version").write_text(rocm)
        assert mlc_llm_group.flavour(FLAVOURS) == wanted
        assert mlc_llm_group.flavour(("cpu",)) == "cpu"

    @POSIX
    def test_a_launcher_whose_interpreter_crashes(self, tools: Path) -> None:
        python = stand_in(tools, "python3", "Fatal Python error: init_fs_encoding\n", dies="ABRT")
        launcher = stand_in(tools, "mlc_llm")
        launcher.write_text(f"#!{python}\n")
        finding = look("mlc_llm")
        assert finding.status == "broken"
        assert str(python) in finding.found
        assert finding.blocks("mlc_llm", "cuda")


def interpreter(**changes: object) -> Interpreter:
    this = Interpreter(
        version=(3, 12, 4),
        implementation="CPython",
        machine="x86_64",
        system="linux",
        bits=64,
        translated=False,
        libc="",
        path="/usr/bin/python3",
    )
    return dataclasses.replace(this, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({}, "ok", "CPython 3.12.4, x86_64"),
        ({"machine": "arm64", "system": "darwin"}, "ok", "arm64"),
        ({"version": (3, 10, 1)}, "broken", "3.10.1"),
        ({"system": "darwin", "translated": True}, "broken", "under Rosetta on Apple silicon"),
        ({"system": "darwin"}, "broken", "x86_64"),
        ({"system": "win32", "machine": "ARM64"}, "broken", "ARM64"),
        ({"system": "win32", "machine": "AMD64", "translated": True}, "ok", "AMD64"),
        ({"bits": 32}, "broken", "x86_64"),
        ({"libc": "musl"}, "broken", "x86_64"),
    ],
)
def test_pythons(changes: dict[str, object], status: str, told: str) -> None:
    finding = python_group.judge(BY_ID["python"], interpreter(**changes))
    assert finding.status == status
    assert told in finding.found
    assert finding.status == "ok" or finding.remedy.told


def test_this_python_is_one_that_works(tools: Path) -> None:
    assert look("python").status == "ok"
    assert python_group.this().machine


def test_versions_wanted_are_those_of_the_project() -> None:
    for name in ("apache-tvm", "apache-tvm-ffi", "ziglang"):
        assert packages.pinned(name) == packages.installed(name) != ""
    assert packages.pinned("numpy") == ""
    assert packages.pinned("no-such-thing") == ""


def test_what_installs_packages_is_safe_and_names_this_environment() -> None:
    remedy = packages.install("ziglang", "platformdirs", told="Install.")
    (argv,) = remedy.runs
    assert argv[0] == sys.executable or "--python" in argv
    assert argv[-2:] == (f"ziglang=={packages.pinned('ziglang')}", "platformdirs")
    assert remedy.commands == (shell_line(argv),)


class TestTheRuntimeInTheCache:
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
        return tmp_path / "cache" / build.KIND

    def fill(self, name: str = "") -> Path:
        def write(folder: Path) -> None:
            (folder / "objects").mkdir()
            (folder / "objects" / "00.o").write_bytes(b"object")

        return cache.entry(build.KIND, name or build.key(toolchain.find()), write)

    @pytest.mark.usefixtures("place")
    def test_not_there_yet(self) -> None:
        finding = look("wasm-runtime")
        assert finding.status == "warn"
        assert "not compiled yet" in finding.found
        assert finding.remedy.runs[0][-2:] == ("engine.embedded.wasm", "build")

    @pytest.mark.usefixtures("place")
    def test_there(self) -> None:
        folder = self.fill()
        self.fill("old")
        finding = look("wasm-runtime")
        assert finding.status == "ok"
        assert folder.name in finding.found
        assert "1 of other versions" in finding.found

    @pytest.mark.usefixtures("place")
    def test_damaged(self) -> None:
        folder = self.fill()
        (folder / "objects" / "00.o").write_bytes(b"objecT")
        finding = look("wasm-runtime")
        assert finding.status == "warn"
        assert "damaged: objects/00.o" in finding.found
        assert [argv[-1] for argv in finding.remedy.runs] == ["clear", "build"]
        (folder / cache.MANIFEST).write_text("{")
        assert f"damaged: {cache.MANIFEST}" in look("wasm-runtime").found

    def test_a_place_that_cannot_be_written(self, place: Path) -> None:
        place.parent.mkdir()
        place.write_text("a file where a folder should be")
        finding = look("wasm-runtime")
        assert finding.status == "broken"
        assert finding.blocks("embedded", "webgpu")
        assert not finding.blocks("embedded", "cpu")

    @pytest.mark.usefixtures("place")
    def test_clearing_removes_entries_and_frees_their_bytes(self) -> None:
        folder = self.fill()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert cache.clear(build.KIND) == size
        assert not folder.exists()
        assert cache.clear(build.KIND) == 0


def test_memory_and_disk_are_told_in_gib(tools: Path) -> None:
    for name in ("memory", "disk"):
        finding = look(name)
        assert " GiB" in finding.found
        assert finding.status in ("ok", "warn")


def test_browsers_are_found_by_name(tools: Path) -> None:
    chromium = stand_in(tools, "chromium", hangs=True)
    assert str(chromium) in look("browser").found.replace(".CMD", ".cmd")


class Answering(http.server.BaseHTTPRequestHandler):
    """A Hub that knows one token."""

    def do_GET(self) -> None:
        token = self.headers.get("authorization", "")
        status, body = (200, [{"id": "a/b"}]) if self.path.startswith("/api/models") else (404, {})
        if self.path.startswith("/api/whoami"):
            status, body = (200, {"name": "ada"}) if token.endswith("hf_good") else (401, {"error": "no"})
        if self.server.status:  # type: ignore[attr-defined]
            status = self.server.status  # type: ignore[attr-defined]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.status = 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def asked(hub: http.server.ThreadingHTTPServer, tmp_path: Path) -> Callable[..., Finding]:
    """What a child finds of the Hub: its client reads its settings once, when it is imported."""

    def ask(name: str, status: int = 0, **changes: str) -> Finding:
        hub.status = status  # type: ignore[attr-defined]
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path), "HF_TOKEN": ""}
        env |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"} | changes
        events = list(check([BY_ID[name]], threading.Event(), seconds=100, env=env))
        assert isinstance(events[-1], Found)
        return events[-1].finding

    return ask


def test_the_hub_answers_and_knows_a_token(asked: Callable[..., Finding]) -> None:
    assert asked("hub").found.endswith("answers")
    good = asked("hub", HF_TOKEN="hf_good")
    assert (good.status, good.found.partition(" ")[2]) == ("ok", "answers, and knows the token as ada's")
    bad = asked("hub", HF_TOKEN="hf_secret_that_expired")
    assert (bad.status, "does not accept the token" in bad.found) == ("warn", True)
    assert "secret" not in json.dumps(to_json(bad))


def test_a_hub_that_does_not_answer_is_a_warning(asked: Callable[..., Finding]) -> None:
    gone = asked("hub", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_secret")
    assert (gone.status, "cannot be reached" in gone.found) == ("warn", True)
    assert "secret" not in json.dumps(to_json(gone))
    ill = asked("hub", 503)
    assert (ill.status, "error 503" in ill.found) == ("warn", True)
    forbidden = asked("hub", HF_HUB_OFFLINE="1")
    assert (forbidden.status, "HF_HUB_OFFLINE" in forbidden.found) == ("warn", True)


def test_a_hub_that_keeps_silent_is_a_warning_at_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes calls, and says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = {
            "HF_ENDPOINT": address,
            "HF_TOKEN": "hf_secret",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }
        events = list(check([BY_ID["hub"]], threading.Event(), seconds=4, env=env))
    assert isinstance(events[-1], Found)
    assert events[-1].finding.status == "warn"
    assert "secret" not in json.dumps(to_json(events[-1].finding))


def test_a_token_is_told_by_its_place_alone(asked: Callable[..., Finding], tmp_path: Path) -> None:
    assert asked("hub-token").status == "warn"
    given = asked("hub-token", HF_TOKEN="hf_secret")
    assert (given.status, given.found) == ("ok", "in HF_TOKEN")
    (tmp_path / "token").write_text("hf_secret")
    stored = asked("hub-token")
    assert (stored.status, stored.found) == ("ok", f"in {tmp_path / 'token'}")
    odd = asked("hub-token", HF_TOKEN="my secret")
    assert odd.status == "warn"
    assert not any("secret" in json.dumps(to_json(finding)) for finding in (given, stored, odd))


def test_the_table_of_probes() -> None:
    assert len(BY_ID) == len(PROBES)
    groups = [
        *("python", "tvm", "wasm", "machine", "hub", "browser", "mlc_llm", "emscripten", "docker", "cuda"),
        *("vulkan", "apple", "android"),
    ]
    assert list(dict.fromkeys(probe.group for probe in PROBES)) == groups
    for probe in PROBES:
        assert probe.why.endswith("."), probe.id
        assert not probe.title.endswith(".")
