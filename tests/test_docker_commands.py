"""engine.backends.docker: a plan's stages as `docker run`, word for word."""

import dataclasses
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import docker_stand_in
import pytest
from runner_support import plan_for

from engine.backends.base import Folders, StageCommand, compiler_of
from engine.backends.docker import __main__ as client
from engine.backends.docker import mounts, official
from engine.backends.docker.backend import DockerBackend
from engine.backends.docker.inspection import Daemon, Image
from engine.backends.embedded import EmbeddedBackend
from engine.backends.official.cli import Cli, Subcommand
from engine.backends.official.inspection import Inspection
from engine.errors import ToolchainError, UsageError
from engine.plan import ExportPlan
from engine.run.fingerprint import fingerprint

DAEMON = Daemon(
    version="28.3.2",
    architecture="amd64",
    memory=8 << 30,
    podman=False,
    desktop=False,
    rootless=False,
    remapped=False,
    selinux=False,
)
IMAGE = Image(
    name="mlc-compiler", id="sha256:5a", architecture="amd64", ours=True, version="0.1.0", mlc_llm=""
)
PROGRAM = (sys.executable, "-P", "-m", "engine.backends.docker")


def backend_of(image: Image = IMAGE, daemon: Daemon = DAEMON) -> DockerBackend:
    return DockerBackend(lambda: image, lambda: daemon)


def folders_in(tmp_path: Path, *, adapter: bool = False) -> Folders:
    for name in ("model", "adapter", "out"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    return Folders(
        source=tmp_path / "model",
        output=tmp_path / "out",
        adapter=tmp_path / "adapter" if adapter else None,
    )


@pytest.fixture
def on_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the test is made before, as pytest asks whose it is."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "getuid", lambda: 1000, raising=False)
    monkeypatch.setattr(os, "getgid", lambda: 100, raising=False)


def first(tmp_path: Path, **changes: bool) -> tuple[str, ...]:
    backend = backend_of(daemon=dataclasses.replace(DAEMON, **changes))
    return backend.commands(plan_for(tmp_path), folders_in(tmp_path))[0].argv


def value_of(argv: tuple[str, ...], flag: str) -> str | None:
    return argv[argv.index(flag) + 1] if flag in argv else None


@pytest.mark.usefixtures("on_linux")
def test_the_stages_word_for_word(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, compile=True, lora_adapter="x/y")
    commands = backend_of().commands(plan, folders_in(tmp_path, adapter=True))
    key = commands[0].argv[8].split("-")[2]
    assert len(key) == 12

    def expected(stage: str, *words: str) -> tuple[str, ...]:
        return (
            *(*PROGRAM, "run", "--rm", "-i", "--name", f"mlc-wizard-{key}-{stage}", "--pull", "never"),
            *("--network", "none", "--user", "1000:100", "-e", "MLC_WIZARD_RECORDS"),
            *("-v", f"{tmp_path}/model:/mlc/model:ro", "-v", f"{tmp_path}/adapter:/mlc/adapter:ro"),
            *("-v", f"{tmp_path}/out:/mlc/output", "mlc-compiler"),
            *("run", "--mounted", "/mlc/model", "--mounted", "/mlc/output"),
            *("python", "-P", "-m", "engine.embedded", stage, *words),
        )

    quantization = ("--quantization", "q4f16_1")
    assert [command.argv for command in commands] == [
        expected(
            "convert_weight",
            *("/mlc/model", *quantization, "--lora-adapter", "/mlc/adapter"),
            *("-o", "/mlc/output/.mlc-wizard/convert_weight.partial"),
        ),
        expected(
            "gen_config",
            *("/mlc/model", *quantization, "--conv-template", "auto", "--context-window-size", "256"),
            *("--prefill-chunk-size", "64", "-o", "/mlc/output/.mlc-wizard/gen_config.partial"),
        ),
        expected(
            "compile",
            *("/mlc/output/mlc-chat-config.json", *quantization, "--device", "webgpu", "--opt", "O2"),
            *("-o", "/mlc/output/.mlc-wizard/compile.partial/model-webgpu.wasm"),
        ),
    ]


@pytest.mark.usefixtures("on_linux")
@pytest.mark.parametrize(
    ("daemon", "user", "more"),
    [
        ({}, "1000:100", {}),
        ({"rootless": True}, "0:0", {}),
        ({"remapped": True}, "1000:100", {"--userns": "host"}),
        ({"selinux": True}, "1000:100", {"--security-opt": "label=disable"}),
        ({"desktop": True}, "0:0", {}),
    ],
)
def test_files_are_those_of_the_calling_user(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    daemon: dict[str, bool],
    user: str,
    more: dict[str, str],
) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-28-amd64")
    argv = first(tmp_path, **daemon)
    assert value_of(argv, "--user") == user
    found = {flag: value_of(argv, flag) for flag in ("--userns", "--security-opt") if flag in argv}
    assert found == more


@pytest.mark.usefixtures("on_linux")
def test_wsl_maps_no_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    assert value_of(first(tmp_path, desktop=True), "--user") == "1000:100"


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_docker_desktop_maps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert "--user" not in first(tmp_path, desktop=True)


@pytest.mark.parametrize(("architecture", "asked"), [("amd64", None), ("arm64", "linux/amd64")])
def test_an_image_for_another_processor_is_asked_for_and_told(
    tmp_path: Path, architecture: str, asked: str | None
) -> None:
    backend = backend_of(daemon=dataclasses.replace(DAEMON, architecture=architecture))
    argv = backend.commands(plan_for(tmp_path), folders_in(tmp_path))[0].argv
    assert value_of(argv, "--platform") == asked
    advice = "docker build --platform linux/arm64 -t mlc-compiler -f docker/Dockerfile.mlc ."
    assert (advice in backend.reason()) == (asked is not None)


# --- paths ---------------------------------------------------------------------------------------


def test_a_snapshot_of_the_hub_is_mounted_with_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "77aa").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/77aa")
    found = mounts.of(Folders(source=snapshot, output=tmp_path / "out"))
    assert found.flags() == (
        *("-v", f"{repository}:/mlc/model:ro"),
        *("-v", f"{tmp_path}/out:/mlc/output"),
    )
    assert found.inside(str(snapshot)) == "/mlc/model/snapshots/0123abc"
    assert found.inside(f"{snapshot}/x.json") == "/mlc/model/snapshots/0123abc/x.json"


def test_what_an_absolute_link_leads_to_is_where_it_was(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    elsewhere = tmp_path / "disk" / "big.safetensors"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"")
    (folders.source / "model.safetensors").symlink_to(elsewhere)
    found = mounts.of(folders)
    assert f"{elsewhere}:{elsewhere}:ro" in found.flags()
    assert f"{folders.source}:/mlc/model:ro" in found.flags()


def test_a_folder_that_is_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    link = tmp_path / "latest"
    link.symlink_to(folders.source)
    found = mounts.of(dataclasses.replace(folders, source=link))
    assert f"{folders.source}:/mlc/model:ro" in found.flags()
    assert found.inside(str(link)) == "/mlc/model"


def test_of_folders_within_each_other_the_inner_one_counts(tmp_path: Path) -> None:
    folders = folders_in(tmp_path)
    inner = folders.output / "model"
    inner.mkdir()
    found = mounts.of(dataclasses.replace(folders, source=inner))
    assert found.inside(f"{inner}/config.json") == "/mlc/model/config.json"
    assert found.inside(f"{folders.output}/x") == "/mlc/output/x"
    assert found.inside(f"{folders.output}s/x") == f"{folders.output}s/x"


@pytest.mark.parametrize("which", ["source", "output", "adapter"])
def test_a_colon_is_refused(tmp_path: Path, which: str) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    folders = dataclasses.replace(folders_in(tmp_path), **{which: folder})
    with pytest.raises(UsageError, match="colon"):
        mounts.of(folders)


def test_the_clients_words_become_those_of_this_machine() -> None:
    argv = ["run", "-v", "C:\\models\\x:/mlc/model:ro", "-v", "/home/me/out:/mlc/output", "mlc-compiler"]
    places = client.places_of(argv)
    assert places == [(b"/mlc/model", "C:\\models\\x"), (b"/mlc/output", "/home/me/out")]

    def said(line: str) -> str:
        return client.on_this_machine(line.encode(), places).decode()

    assert said("Wrote /mlc/output/a.bin\n") == "Wrote /home/me/out/a.bin\n"
    assert said("/mlc/model") == "C:\\models\\x"
    assert said('\x1e{"error": {"what": "/mlc/model is"}}\n') == (
        '\x1e{"error": {"what": "C:\\\\models\\\\x is"}}\n'
    )
    for other in ("/mlc/models", "x/mlc/model2", "/usr/mlc/model"):
        assert said(f"{other}\n") == f"{other}\n"


# --- what a stage depends on ---------------------------------------------------------------------


def prints(tmp_path: Path, backend: DockerBackend, plan: ExportPlan, folders: Folders) -> list[str]:
    commands: tuple[StageCommand, ...] = backend.commands(plan, folders)
    return [fingerprint([command], folders) for command in commands]


@pytest.mark.usefixtures("on_linux")
def test_the_image_counts_and_who_runs_it_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, folders = plan_for(tmp_path), folders_in(tmp_path)
    before = prints(tmp_path, backend_of(), plan, folders)
    other = backend_of(dataclasses.replace(IMAGE, id="sha256:5b"))
    assert not set(prints(tmp_path, other, plan, folders)) & set(before)
    monkeypatch.setattr(os, "getuid", lambda: 1001)
    again = backend_of(daemon=dataclasses.replace(DAEMON, version="29.0.0", selinux=True))
    assert prints(tmp_path, again, plan, folders) == before
    moved = dataclasses.replace(folders, output=tmp_path / "elsewhere")
    assert prints(tmp_path, again, plan, moved) == before
    wider = dataclasses.replace(plan, context_window_size=512)
    assert prints(tmp_path, again, wider, folders)[0] == before[0]
    assert prints(tmp_path, again, wider, folders)[1] != before[1]
    inner = [fingerprint([command], folders) for command in EmbeddedBackend().commands(plan, folders)]
    assert not set(inner) & set(before)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "why"),
    [({"ours": False}, "not built from"), ({"version": "0.0.1"}, "It has 0.0.1, this is")],
)
def test_an_image_of_something_else_is_refused(tmp_path: Path, image: dict[str, object], why: str) -> None:
    backend = backend_of(dataclasses.replace(IMAGE, **image))  # type: ignore[arg-type]
    with pytest.raises(ToolchainError) as caught:
        backend.check(plan_for(tmp_path), None)
    assert why in caught.value.why
    assert "docker build -t mlc-compiler" in caught.value.remedy


@pytest.mark.parametrize("device", ["cpu", "vulkan", "cuda", "metal", "iphone"])
def test_a_library_that_would_not_load_is_refused_before_any_work(tmp_path: Path, device: str) -> None:
    image = dataclasses.replace(IMAGE, architecture="riscv64", mlc_llm="mlc-llm-nightly-cpu")
    backend = DockerBackend(lambda: image, lambda: DAEMON, lambda _: unlimited())
    plan = plan_for(tmp_path, device=device, compile=True)
    with pytest.raises(UsageError, match="riscv64" if device not in {"metal", "iphone"} else "container"):
        backend.check(plan, None)
    backend.check(dataclasses.replace(plan, compile=False), None)


def unlimited() -> Inspection:
    """The image's mlc_llm, which knows every flag."""
    flags = ("--quantization", "--model-type", "--device", "--source", "--source-format", "--conv-template")
    flags += ("--context-window-size", "--prefill-chunk-size", "--opt", "--output")
    stages = {
        name: Subcommand(name=name, flags=frozenset(flags), choices={})
        for name in ("convert_weight", "gen_config", "compile")
    }
    return Inspection(
        candidate=official.candidate(),
        module="mlc_llm",
        tvm="0.24",
        packages={"mlc-llm-nightly-cpu": "0.20.dev1"},
        cli=Cli(module="mlc_llm", **stages),
    )


@pytest.mark.usefixtures("on_linux")
def test_what_the_embedded_compiler_lacks_the_images_mlc_llm_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    docker_stand_in.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    image = dataclasses.replace(IMAGE, mlc_llm="mlc-llm-nightly-cpu mlc-ai-nightly-cpu")
    backend = DockerBackend(lambda: image, lambda: DAEMON, lambda _: unlimited())
    plan = plan_for(tmp_path, device="vulkan", compile=True)
    backend.check(plan, None)
    assert backend.reason().endswith(", by its mlc_llm 0.20.dev1.")
    assert compiler_of(backend) == "mlc_llm"
    *_, compile_ = backend.commands(plan, folders_in(tmp_path))
    words = compile_.argv[compile_.argv.index("python") :]
    split = words.index("--")
    assert words[:6] == ("python", "-P", "-m", "engine.backends.official.stage", "compile", "--into")
    assert words[6] == "/mlc/output/.mlc-wizard/compile.partial"
    assert words[split + 1 :] == (
        *("/opt/mlc-llm/bin/python", "-m", "mlc_llm", "compile", "/mlc/output/mlc-chat-config.json"),
        *("--quantization", "q4f16_1", "--device", "vulkan:generic", "--opt", "O2"),
        *("--output", "/mlc/output/.mlc-wizard/compile.partial/model-vulkan.so"),
    )
    assert compile_.versions["mlc-llm-nightly-cpu"] == "0.20.dev1"
    assert compile_.versions["mlc-compiler"] == "sha256:5a"
    backend.check(dataclasses.replace(plan, device="webgpu"), None)
    assert compiler_of(backend) == "embedded"


def test_without_it_the_refusal_says_what_would_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_stand_in.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UsageError) as caught:
        backend_of().check(plan_for(tmp_path, device="vulkan", compile=True), None)
    assert "--build-arg MLC_LLM_WHEELS" in caught.value.remedy


@pytest.mark.parametrize("changes", [{"quantization": "q9"}, {"device": "vulkan", "compile": True}])
def test_without_docker_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    never: Callable[[], Image] = lambda: pytest.fail("asked Docker")  # noqa: E731
    with pytest.raises(UsageError):
        DockerBackend(never, lambda: DAEMON).check(plan_for(tmp_path, **changes), None)
