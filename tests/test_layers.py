"""Which parts know which: the contracts of pyproject.toml, and what a command imports in fact."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GOLDEN
from importlinter.cli import lint_imports

from engine import process

ROOT = Path(__file__).parents[1]


def imported(folder: Path, *argv: str) -> set[str]:
    """The top-level modules that `mlc-wizard ARGV` has imported by its end."""
    code = f"""
import json, sys
from tui.cli import main
code = main({list(argv)!r})
print(json.dumps([code, sorted({{name.partition('.')[0] for name in sys.modules}})]))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env=process.child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    exit_code, names = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == 0, done.stderr
    return set(names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = json.dumps(str(GOLDEN / "llama_tied" / "hf"))
    (tmp_path / "my.toml").write_text(
        f'version = 1\n[model]\nsource = {source}\n[quantization]\nmode = "q0f16"\n'
    )
    return tmp_path


HEAVY = {"textual", "rich", "tvm", "tvm_ffi", "torch", "huggingface_hub"}


@pytest.mark.parametrize(
    "argv",
    [("--preset", "my.toml", "--dry-run"), ("--preset", "my.toml", "--no-compile"), ("--list-presets",)],
)
def test_a_preset_imports_nothing_heavy(folder: Path, argv: tuple[str, ...]) -> None:
    names = imported(folder, *argv)
    assert not HEAVY & names
    assert "engine" in names


def test_version_imports_next_to_nothing(folder: Path) -> None:
    assert not (HEAVY | {"numpy", "psutil", "filelock", "tokenizers", "platformdirs"}) & imported(
        folder, "--version"
    )


def test_the_first_screen_waits_for_nothing_heavy() -> None:
    """What `benchmarks.startup` measures, without a clock."""
    code = "import sys, tui.app, tui.screens.start; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    tops = {name.partition(".")[0] for name in names}
    assert not (HEAVY - {"textual", "rich"} | {"numpy", "psutil", "filelock", "tokenizers"}) & tops
    assert not {"engine.model.facts", "engine.estimate", "engine.runner", "tui.screens.step"} & names


def test_the_supervisor_needs_the_standard_library_alone() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import supervisor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT / "engine")],
        capture_output=True,
        text=True,
        check=True,
    )
    tops = {name.partition(".")[0] for name in done.stdout.split()} - {"supervisor", "__main__"}
    assert tops <= sys.stdlib_module_names


def test_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", cache_dir=None) == 0
