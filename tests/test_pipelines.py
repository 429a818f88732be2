"""What the README shows for pipelines: its very commands, script and job, run on the demo."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_, _, REST = README.partition("## In a pipeline\n")
SECTION = REST.partition("\n## ")[0]


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    return text


LINES = block("sh").splitlines()
SCRIPTS: dict[str, str] = json.loads(block("json"))["scripts"]
JOB: dict[str, Any] = yaml.safe_load(block("yaml"))


class Place:
    """A folder in which the commands of the README run, with `mlc-wizard` on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        program = folder / "bin" / "mlc-wizard"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m tui "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "npm_config_update_notifier": "false",
        }

    def run(self, line: str) -> str:
        """Run `line` as a shell does; what it narrates."""
        done = subprocess.run(
            ["sh", "-e", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stderr

    def quantization(self, export: str) -> str:
        config = json.loads((self.folder / export / "mlc-chat-config.json").read_text())
        return str(config["quantization"])

    def library(self, export: str) -> bool:
        return (self.folder / export / "model-webgpu.wasm").is_file()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("pipeline"))


def test_the_lines(place: Place) -> None:
    weights, library, override = LINES
    place.run(weights)
    assert (place.quantization("dist/model"), place.library("dist/model")) == ("q4f32_1", False)
    told = place.run(library)
    assert place.library("dist/model")
    for stage in ("convert_weight", "gen_config"):
        assert f"{stage}: skipped" in told
    place.run(override)
    assert place.quantization("dist/model-q4f16_1") == "q4f16_1"
    assert not place.library("dist/model-q4f16_1")


def test_the_job(place: Place) -> None:
    """Its own commands but for the installation, where the lines have made most of it already."""
    (job,) = JOB["jobs"].values()
    steps = job["steps"]
    assert JOB[True]  # YAML 1.1 reads `on` so; to GitHub it is a key
    uses = [step["uses"].partition("@")[0] for step in steps if "uses" in step]
    assert set(uses) == {
        f"actions/{name}" for name in ("checkout", "setup-python", "cache", "upload-artifact")
    }
    checkouts = [step["with"]["path"] for step in steps if "repository" in step.get("with", {})]
    install, export, verify, explain = [step["run"] for step in steps if "run" in step]
    assert install == f"python -m pip install ./{checkouts[0]}"
    place.run(export)
    assert place.library(steps[-1]["with"]["path"])
    place.run(verify)
    with pytest.raises(AssertionError, match="No known failure"):
        place.run(explain)
    keys = [step["with"]["key"] for step in steps if "key" in step.get("with", {})]
    (watched,) = re.findall(rf"hashFiles\('{checkouts[0]}/(.*)/\*\*'\)", "\n".join(keys))
    assert (ROOT / watched / "units.py").is_file()


def test_the_scripts(place: Place) -> None:
    assert shutil.which("npm")
    (place.folder / "package.json").write_text(block("json"))
    place.run("npm run model:weights")
    assert (place.quantization("public/model"), place.library("public/model")) == ("q4f32_1", False)
    assert "--quantization q4f16_1 --device webgpu" in place.run("npm run model:small -- --dry-run >&2")
    place.run("npm run prebuild")  # what npm runs before a script `build`
    assert (place.quantization("public/model"), place.library("public/model")) == ("q4f32_1", True)
    assert set(SCRIPTS) == {"model", "model:weights", "model:small", "prebuild"}
