"""Environments with a stand-in for mlc_llm, as pip would have made them."""

import os
import shutil
import sys
import venv
from pathlib import Path

import official_stand_in

ROOT = Path(__file__).parents[1]
NOTHING = "pass\n"


def environment(folder: Path) -> Path:
    """A virtual environment without any package; its interpreter."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(python: Path) -> Path:
    prefix = python.parent.parent
    found = [*prefix.glob("lib/python3*/site-packages"), *prefix.glob("Lib/site-packages")]
    return found[0]


def distribution(python: Path, name: str, version: str, **packages: str) -> None:
    """Install `name`: a dist-info folder, and packages of one file with that code."""
    place = site_packages(python)
    info = place / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for package, code in packages.items():
        (place / package).mkdir(exist_ok=True)
        (place / package / "__init__.py").write_text(code)


def mlc_llm(
    folder: Path,
    *,
    module: str = "mlc_llm",
    version: str = "0.20.dev321",
    on_import: str = NOTHING,
    tvm: str = '__version__ = "0.24.dev99"\n',
) -> Path:
    """An environment with mlc_llm and its tvm; its interpreter. `on_import` is code of its __init__.py."""
    python = environment(folder)
    distribution(python, "mlc-ai-nightly-cpu", version, tvm=tvm)
    package = module.replace("_", "-")
    distribution(python, f"{package}-nightly-cpu", version, **{module: f"import tvm\n{on_import}"})
    command_line(site_packages(python) / module, module)
    launcher = python.parent / module
    launcher.write_text(f"#!{python}\nfrom {module}.__main__ import main\nmain()\n")
    launcher.chmod(0o755)
    return python


def command_line(package: Path, module: str) -> None:
    """The stand-in as the program of `package`."""
    shutil.copyfile(official_stand_in.__file__, package / "_cli.py")
    code = f"from {module}._cli import main\nif __name__ == '__main__':\n    main({module!r})\n"
    (package / "__main__.py").write_text(code)


def working(monkeypatch, does: str = "") -> None:
    """Let the stand-in work with our own stages, and go wrong as `does` says."""
    monkeypatch.setenv("STAND_IN_PYTHON", sys.executable)
    monkeypatch.setenv("STAND_IN_PATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("STAND_IN_DOES", does)
