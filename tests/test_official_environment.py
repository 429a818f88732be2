"""The environment that is made for mlc_llm: its commands, and pip running them on wheels of a test's own."""

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.backends.official import own_environment
from engine.backends.official.inspection import look
from engine.backends.official.interpreter import own_environment as place
from engine.errors import ToolchainError


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def wheel(folder: Path, name: str, version: str, **files: str) -> None:
    info = f"{name}-{version}.dist-info"
    files |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.mark.usefixtures("linux")
def test_the_commands_exactly(tmp_path, monkeypatch):
    monkeypatch.delenv("MLC_WIZARD_MLC_LLM", raising=False)
    made, installed = own_environment.commands()
    python = str(place() / "bin" / "python")
    assert made == (sys.executable, "-m", "venv", "--clear", str(place()))
    assert installed == (
        *(python, "-m", "pip", "install", "--pre", "--upgrade", "-f", "https://mlc.ai/wheels"),
        *("mlc-llm-nightly-cpu", "mlc-ai-nightly-cpu"),
    )


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize("flavour", ["cu128", "cu130", "rocm61", "rocm62"])
def test_the_builds_for_gpus(flavour):
    assert own_environment.commands(flavour)[-1][-2:] == (
        f"mlc-llm-nightly-{flavour}",
        f"mlc-ai-nightly-{flavour}",
    )


@pytest.mark.usefixtures("linux")
def test_a_folder_that_somebody_named_is_not_cleared(tmp_path, monkeypatch):
    monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(tmp_path))
    assert "--clear" not in own_environment.commands()[0]
    assert own_environment.commands()[0][-1] == str(tmp_path)
    assert "--clear" not in own_environment.commands(environment=tmp_path)[0]


@pytest.mark.parametrize(
    ("system", "machine", "offered"),
    [
        ("linux", "x86_64", ("cpu", "cu128", "cu130", "rocm61", "rocm62")),
        ("linux", "aarch64", ()),
        ("darwin", "arm64", ("cpu",)),
        ("darwin", "x86_64", ()),
        ("win32", "AMD64", ("cpu",)),
        ("win32", "ARM64", ()),
    ],
)
def test_what_there_is_for_a_system(system, machine, offered, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert own_environment.flavours() == offered
    if not offered:
        with pytest.raises(ToolchainError, match="no wheels of mlc_llm for"):
            own_environment.commands()
    else:
        with pytest.raises(ToolchainError, match="'cu118'"):
            own_environment.commands("cu118")


@pytest.mark.usefixtures("linux")
def test_pip_makes_an_environment_that_works_and_ours_stays_as_it_was(tmp_path, monkeypatch):
    """The real pip, wheels in a folder, no network."""
    from official_stand_in import __file__ as stand_in

    command_line = "from mlc_llm._cli import main\nif __name__ == '__main__':\n    main('mlc_llm')\n"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(
        wheels,
        "mlc_llm_nightly_cpu",
        "0.20.dev7",
        **{
            "mlc_llm/__init__.py": "import tvm\n",
            "mlc_llm/_cli.py": Path(stand_in).read_text(encoding="utf-8"),
            "mlc_llm/__main__.py": command_line,
        },
    )
    wheel(wheels, "mlc_ai_nightly_cpu", "0.24.dev5", **{"tvm/__init__.py": "__version__ = '0.24.dev5'\n"})
    monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(tmp_path / "own"))
    monkeypatch.setenv("PATH", os.defpath)
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX", "MLC_LLM_SOURCE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for command in own_environment.commands(links=str(wheels)):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    (found,) = look()
    assert found.works, found.problem
    assert (found.candidate.origin, found.version, found.tvm) == ("own", "0.20.dev7", "0.24.dev5")
    ours = subprocess.run([sys.executable, "-P", "-c", "import mlc_llm"], capture_output=True, check=False)
    assert b"No module named 'mlc_llm'" in ours.stderr
