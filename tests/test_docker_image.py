"""docker/: what the image runs (docker/entrypoint.py, on this machine), and that the Dockerfile fits it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from engine.backends.docker import inspection, official
from engine.embedded.wasm.cache import CACHE_VARIABLE
from engine.explain.containers import BUILD

ROOT = Path(__file__).parents[1]
ENTRYPOINT = ROOT / "docker" / "entrypoint.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "engine" / "demo_model"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", str(ENTRYPOINT), *arguments]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the image would run, with a standard input that stays open."""
    reading, writing = os.pipe()
    try:
        return subprocess.run(
            command(*arguments),
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=reading,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(reading)
        os.close(writing)


# --- the entrypoint ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [(), ("python3", "scripts/export_mlc.py")], ids=["alone", "in place of"])
def test_the_documented_form_makes_weights_and_configuration(tmp_path: Path, before: tuple[str, ...]) -> None:
    (tmp_path / "model").symlink_to(DEMO)
    done = run(*before, "--input", "model", "--output", "dist/mlc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "dist" / "mlc")]
    config = json.loads((tmp_path / "dist" / "mlc" / "mlc-chat-config.json").read_text())
    assert config["quantization"] == "q0f16"
    assert not list((tmp_path / "dist" / "mlc").glob("*.wasm"))
    assert ("mlc-wizard exports in place of: python3 scripts/export_mlc.py" in done.stderr) == bool(before)


def test_the_documented_form_compiles_and_takes_our_flags(tmp_path: Path) -> None:
    arguments = ("--mlc-quant", "q4f32_1", "--set", "context.context_window_size=512", "--dry-run")
    done = run("--input=builtin:demo", "--output", "mlc", "--compile", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    convert, config, compile_, _ = done.stdout.splitlines()
    assert "--quantization q4f32_1" in convert
    assert "--context-window-size 512" in config
    assert "--device webgpu" in compile_
    assert "model-webgpu.wasm" in compile_


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input", "x"), "--output"),
        (("--input", "./none", "--output", "o"), "none"),
        (("--input", "builtin:demo", "--output", "o", "--mlc-quant", "q4"), "quantization.mode"),
    ],
)
def test_the_documented_form_refuses_in_words(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_other_words_are_those_of_mlc_wizard_or_a_program(tmp_path: Path) -> None:
    assert "demo" in run("--list-presets", cwd=tmp_path).stdout
    assert run("explain", "none.log", cwd=tmp_path).returncode == 2
    assert run("env", cwd=tmp_path, MARK="here").stdout.count("MARK=here\n") == 1
    assert run("run", "env", cwd=tmp_path, MARK="here").stdout.count("MARK=here\n") == 1


def test_what_is_written_belongs_to_the_owner_of_the_folder() -> None:
    """Where the tests run as root, of a folder of somebody else's."""
    with tempfile.TemporaryDirectory() as folder:
        owner = 1234 if os.geteuid() == 0 else os.geteuid()
        os.chown(folder, owner, -1)
        assert run("id", "-u", cwd=Path(folder)).stdout.strip() == str(owner)
        assert run("run", "id", "-u", cwd=Path(folder)).stdout.strip() == str(os.geteuid())


def test_a_stage_ends_with_its_standard_input() -> None:
    code = "import time; print('ready', flush=True); time.sleep(600)"
    stage = subprocess.Popen(
        command("run", sys.executable, "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert stage.stdin is not None
    assert stage.stdout is not None
    with stage:
        assert stage.stdout.readline() == b"ready\n"
        assert stage.poll() is None
        stage.stdin.close()
        assert stage.wait(timeout=60) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_program(number: signal.Signals) -> None:
    """What `docker stop` and `docker kill` send, to the first process of a container alone."""
    # What a shell puts in the background ignores SIGINT, and so do its children: these tests, too.
    heeds = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    script = heeds + "print('ready', flush=True); time.sleep(600)"
    program = subprocess.Popen(
        command(sys.executable, "-c", script),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert program.stdout is not None
    with program:
        try:
            assert program.stdout.readline() == b"ready\n"
            program.send_signal(number)
            assert program.wait(timeout=60) == 128 + number
        finally:
            program.kill()


@pytest.mark.parametrize("kind", ["empty", "missing"])
@pytest.mark.parametrize("records", ["", "1"])
def test_a_folder_that_the_daemon_made_is_told(tmp_path: Path, kind: str, records: str) -> None:
    (tmp_path / "empty").mkdir()
    done = run("run", "--mounted", str(tmp_path / kind), "env", cwd=tmp_path, MLC_WIZARD_RECORDS=records)
    assert done.returncode == 3
    assert str(tmp_path / kind) in done.stderr
    assert done.stderr.startswith("\x1e") == bool(records)


# --- the Dockerfile ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dockerfile() -> DockerfileParser:
    path = ROOT / "docker" / "Dockerfile.mlc"
    with tempfile.TemporaryDirectory() as folder:  # the parser opens its file for writing
        copy = Path(folder) / "Dockerfile"
        copy.write_bytes(path.read_bytes())
        parser = DockerfileParser(path=str(copy))
        parser.structure  # noqa: B018  read while the copy is there
        yield parser


def values(dockerfile: DockerfileParser, instruction: str) -> list[str]:
    return [part["value"] for part in dockerfile.structure if part["instruction"] == instruction]


def test_every_base_is_the_argument(dockerfile: DockerfileParser) -> None:
    assert values(dockerfile, "FROM") == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
    (base,) = [value for value in values(dockerfile, "ARG") if value.startswith("BASE_IMAGE=")]
    version = re.search(r"python:3\.(\d+)-slim", base)
    assert version is not None
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert int(version[1]) >= int(wanted.removeprefix(">=3."))


def test_what_is_copied_is_there_and_not_ignored(dockerfile: DockerfileParser) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for value in values(dockerfile, "COPY")
        if not value.startswith("--from")
        for source in value.split()[:-1]
    }
    assert kept <= copied
    assert all(any(Path(source).is_relative_to(name) for name in kept) for source in copied)
    assert all((ROOT / source).exists() for source in copied)


def test_labels_and_paths_are_those_of_the_code(dockerfile: DockerfileParser) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"VERSION={project['version']}" in values(dockerfile, "ARG")
    (labels,) = values(dockerfile, "LABEL")
    assert f'{inspection.MLC_LLM_LABEL}="${{MLC_LLM_WHEELS}}"' in labels
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    settings = values(dockerfile, "ENV")
    assert f"{CACHE_VARIABLE}=/opt/mlc-wizard/cache" in settings[-1]
    assert f"{CACHE_VARIABLE}=/opt/mlc-wizard/cache" in settings[-2]  # while the runtime is compiled
    (entrypoint,) = values(dockerfile, "ENTRYPOINT")
    installed = json.loads(entrypoint)[-1]
    assert f"docker/entrypoint.py {installed}" in values(dockerfile, "COPY")
    assert values(dockerfile, "WORKDIR")[-1] == "/workspace"
    assert f"engine/backends/official/probe.py {official.PROBE}" in values(dockerfile, "COPY")
    venv = Path(official.PYTHON).parents[1]
    assert any(f"python3 -m venv {venv}" in value for value in values(dockerfile, "RUN"))


def test_the_image_starts_as_root_for_the_entrypoint_to_choose(dockerfile: DockerfileParser) -> None:
    assert not values(dockerfile, "USER")
    assert "os.setuid" in ENTRYPOINT.read_text()


def test_the_build_command_is_the_same_everywhere(dockerfile: DockerfileParser) -> None:
    assert f"docker build -t {inspection.IMAGE} -f docker/Dockerfile.mlc ." == BUILD
    comments = [part["value"].strip() for part in dockerfile.structure if part["instruction"] == "COMMENT"]
    assert BUILD in comments
    assert f"{BUILD}\n" in README


def test_the_script_without_docker_builds_the_same() -> None:
    script = (ROOT / "docker" / "build-with-buildah.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert f"--tag {inspection.IMAGE}" in script
    assert "--file docker/Dockerfile.mlc" in script
    assert "`docker/build-with-buildah.sh`" in README
