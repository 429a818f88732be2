"""The wheel: what is in it, what it asks for, and that it works far from the checkout it was built in."""

import json
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
COMPILER = {"apache-tvm", "apache-tvm-ffi", "ziglang"}
PLATFORMS = {
    "Linux x86-64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux AArch64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "Windows x86-64": {"sys_platform": "win32", "platform_machine": "AMD64"},
    "Apple silicon": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "Intel Mac": {"sys_platform": "darwin", "platform_machine": "x86_64"},
}
# Fails a process that reads the sources of the checkout; the dependencies may lie inside it, in .venv.
GUARD = """
import os, sys
FORBIDDEN = tuple(os.path.join({root!r}, name) + os.sep for name in ("engine", "tui", "presets", "tests"))
def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str):
        if os.path.abspath(arguments[0]).startswith(FORBIDDEN):
            os.write(2, f"read {{arguments[0]}} of the checkout".encode())
            os._exit(99)
sys.addaudithook(hook)

from importlib.machinery import PathFinder
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = os.environ.get("MISSING", "").split()
        return None if name in missing else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip builds it."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder, "wheel")
    (path,) = folder.glob("*.whl")
    return path


def build(folder: Path, target: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def sources(*folders: str) -> set[str]:
    """The tracked and the new files below `folders` of the checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).is_file()}


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name).decode().splitlines()


def requirements(wheel: Path) -> list[Requirement]:
    lines = [line.removeprefix("Requires-Dist: ") for line in metadata(wheel) if "Requires-Dist: " in line]
    return [Requirement(line) for line in lines]


def test_the_wheel_holds_the_program_its_data_and_nothing_else(wheel: Path) -> None:
    expected = sources("engine", "tui")
    expected |= {name.replace("presets/", "engine/_presets/") for name in sources("presets")}
    assert {name for name in names(wheel) if ".dist-info/" not in name} == expected
    for needed in (
        "engine/_presets/demo.toml",
        "engine/_presets/gemma270m.toml",
        "engine/demo_model/config.json",
        "engine/demo_model/model.safetensors",
        "engine/demo_model/tokenizer.json",
        "engine/embedded/wasm/src/prelude.h",
        "engine/embedded/wasm/src/tvmjs.cc",
    ):
        assert needed in expected


def test_the_wheel_carries_licence_readme_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = next(n for n in archive.namelist() if n.endswith("/METADATA")).removesuffix("METADATA")
        assert archive.read(f"{folder}licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert "mlc-wizard = tui.cli:main" in archive.read(f"{folder}entry_points.txt").decode()
    text = "\n".join(metadata(wheel))
    assert "License-Expression: Apache-2.0" in text
    assert (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[-1] in text


def test_a_wheel_built_from_the_source_archive_is_the_same(wheel: Path, tmp_path: Path) -> None:
    build(tmp_path, "sdist")
    (archive,) = tmp_path.glob("*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*command, str(tmp_path / "again"), str(archive)], check=True, capture_output=True)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert names(again) == names(wheel)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_compiler_is_asked_for_wherever_it_has_wheels(wheel: Path, platform: str) -> None:
    environment: Environment = {**default_environment(), **PLATFORMS[platform]}  # type: ignore[typeddict-item]
    asked = {r.name for r in requirements(wheel) if r.marker is None or r.marker.evaluate(environment)}  # type: ignore[arg-type]
    assert asked & COMPILER == (set() if platform == "Intel Mac" else COMPILER)
    assert {"huggingface-hub", "numpy", "safetensors", "tokenizers"} <= asked


def test_parts_that_reach_into_private_code_are_pinned_exactly(wheel: Path) -> None:
    pinned = {r.name: str(r.specifier) for r in requirements(wheel) if r.name in COMPILER}
    assert set(pinned) == COMPILER
    assert all(version.startswith("==") for version in pinned.values())


def test_neither_users_nor_tests_need_torch(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = {name: found for name, found in project["dependency-groups"].items() if name != "reference"}
    asked = {r.name for r in requirements(wheel)} | {Requirement(r).name for g in groups.values() for r in g}
    assert not asked & {"torch", "transformers", "mlc-llm", "mlc-ai"}
    assert not project["project"].get("optional-dependencies")


class Installed:
    """The wheel in a virtual environment of its own; the dependencies are those of this one."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder / "venv", symlinks=os.name != "nt")
        self.scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.here = folder / "empty"
        self.here.mkdir()
        python = str(self.scripts / "python")
        install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
        subprocess.run([*install, str(wheel)], check=True, capture_output=True)
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        found = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout
        packages = Path(found.strip())
        import numpy

        # A folder named in a .pth file is searched, but .pth files in it, as an editable install's, are not.
        (packages / "dependencies.pth").write_text(str(Path(numpy.__file__).parents[1]), encoding="utf-8")
        (packages / "sitecustomize.py").write_text(GUARD.format(root=str(ROOT)), encoding="utf-8")

    def run(self, *arguments: str, expect: int = 0, missing: str = "") -> "subprocess.CompletedProcess[str]":
        """Run `mlc-wizard ARGUMENTS` in an empty folder; the modules `missing` are as if not installed."""
        environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "NO_COLOR": "1",
            "MISSING": missing,
        }
        done = subprocess.run(
            [str(self.scripts / "mlc-wizard"), *arguments],
            cwd=self.here,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return done


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_the_guard_sees_the_checkout(installed: Installed) -> None:
    installed.run("--preset", str(ROOT / "presets" / "demo.toml"), "--dry-run", expect=99)


def test_the_installed_command_tells_its_version(installed: Installed) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert installed.run("--version").stdout == f"mlc-wizard {project['version']}\n"


def test_the_installed_command_lists_its_presets(installed: Installed) -> None:
    listed = installed.run("--list-presets", "--json").stdout.splitlines()
    shipped = {entry["name"]: entry for entry in map(json.loads, listed) if entry["origin"] == "shipped"}
    assert {"demo", "gemma270m"} <= set(shipped)
    assert not any(entry["error"] for entry in shipped.values())


def test_the_installed_command_plans_the_demo(installed: Installed) -> None:
    told = installed.run("--preset", "demo.toml", "--dry-run", "--json").stdout.splitlines()
    stages = [json.loads(line)["stage"] for line in told]
    assert stages == ["convert_weight", "gen_config", "compile", "verify"]
    assert not list(installed.here.iterdir())


def test_the_installed_command_exports_the_demo(installed: Installed) -> None:
    done = installed.run("--preset", "demo.toml", "--no-compile")
    folder = Path(done.stdout.strip())
    assert folder == installed.here / "mlc-demo"
    assert {"tensor-cache.json", "mlc-chat-config.json", "tokenizer.json"} <= {
        p.name for p in folder.iterdir()
    }
    assert installed.run("verify", "mlc-demo").stdout == "ok\n"


def test_without_the_compiler_as_on_an_intel_mac(installed: Installed) -> None:
    """Weights and configuration are made; compiling is refused before any work."""
    compiler = "tvm tvm_ffi ziglang"
    made = installed.run("--preset", "demo.toml", "--no-compile", "--output", "intel", missing=compiler)
    assert installed.run("verify", made.stdout.strip(), missing=compiler).stdout == "ok\n"
    refused = installed.run("--preset", "demo.toml", "--output", "other", missing=compiler, expect=3)
    assert "apache-tvm" in refused.stderr
    assert "--no-compile" in refused.stderr
    assert not (installed.here / "other").exists()
