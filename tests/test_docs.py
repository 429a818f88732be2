"""What README and architecture page say is so: commands, presets, files, tables, links."""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import LONGEST
from textual.binding import Binding

from engine import errors, preset, preset_schema
from engine.backends.base import library_name
from engine.catalog import QUANTIZATIONS
from engine.embedded import __main__ as stages
from engine.embedded.families.registry import FAMILIES
from engine.plan import ExportPlan
from engine.run import job, receipt
from tui import cli
from tui.app import WizardApp
from tui.screens.advised import AdvisedStep
from tui.screens.result import ResultScreen
from tui.screens.review import ReviewScreen
from tui.screens.run import RunScreen
from tui.screens.step import StepScreen
from tui.screens.toolchain import ToolchainScreen

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "CHANGELOG.md", "docs/architecture.md", "docs/models.md", "docs/native-contract.md")
DEMO = ROOT / "presets" / "demo.toml"


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in `language`."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def lines(*languages: str) -> list[str]:
    return [line for name in languages for block in blocks(name) for line in block.splitlines() if line]


def table(heading: str) -> list[list[str]]:
    """The cells of the table whose first column is `heading`, without its head."""
    _, _, rest = README.partition(f"| {heading} |")
    rows = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def words(line: str) -> list[list[str]]:
    """The commands of a line, split as a shell splits them."""
    return [shlex.split(part.replace("\\", "/"), comments=True) for part in re.split(r"\s*(?:&&|;)\s*", line)]


COMMANDS = [command for line in lines("sh", "powershell") for command in words(line)]
OURS = [c[c.index(word) + 1 :] for c in COMMANDS for word in c if Path(word).name == "mlc-wizard"]


def plan_of(command: list[str]) -> ExportPlan:
    arguments = cli.parser().parse_args(command)
    return preset.load(arguments.preset, arguments.set)


@pytest.mark.parametrize("command", OURS, ids=" ".join)
def test_a_command_of_the_readme_is_one_that_the_program_has(command: list[str]) -> None:
    arguments = cli.parser().parse_args(command)
    asked = (arguments.list_presets, arguments.check, arguments.toolchain, arguments.preset)
    assert not command or arguments.command or any(asked)
    if arguments.preset:
        # Sources that are no more than examples stay examples; everything else must be right.
        plan_of([word.replace("path/to/model", "/path/to/model") for word in command])


def test_every_flag_is_told() -> None:
    flags = {flag for action in cli.parser()._actions for flag in action.option_strings if flag[:2] == "--"}
    assert {flag for flag in flags if flag not in README} == {"--version", "--yes"}


@pytest.mark.parametrize("stage", stages.STAGES)
def test_the_stages_by_hand_have_these_flags(stage: str) -> None:
    (command,) = [c for c in COMMANDS if c[1:3] == ["-m", "engine.embedded"] and c[3] == stage]
    parser = argparse.ArgumentParser()
    __import__(f"engine.embedded.{stage}")
    sys.modules[f"engine.embedded.{stage}"].add_arguments(parser)
    assert parser.parse_args(command[4:]).output


def test_the_stages_by_hand_make_an_export(tmp_path: Path) -> None:
    model = str(ROOT / "engine" / "demo_model")
    made = str(tmp_path / "export")
    for command in COMMANDS:
        if command[0] == "python" and "compile" not in command:
            here = [word.replace("path/to/model", model).replace("dist/my-model", made) for word in command]
            subprocess.run([sys.executable, *here[1:]], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "export" / "mlc-chat-config.json").is_file()


def test_the_example_is_a_preset() -> None:
    (text,) = blocks("toml")
    plan = preset_schema.apply(tomllib.loads(text), (), "README.md", ROOT)
    assert job.prepare(plan).commands()


def test_every_key_of_a_preset_is_in_the_table() -> None:
    told = [key for row in table("Key") for key in re.findall(r"`([\w.]+)`", row[0])]
    assert told == [key.path for key in preset_schema.KEYS]


def test_defaults_are_those_of_the_program() -> None:
    plan = ExportPlan(source="builtin:demo", quantization="q0f16")
    shown = {"auto": "auto", "true": True, "1": 1, "webgpu": "webgpu", "dist": Path("dist"), "empty": ""}
    told = {key.strip("`"): default.strip("`") for key, _, default in table("Key")}
    checked = {path: default for path, default in told.items() if default in shown and "," not in path}
    assert len(checked) >= 9
    for path, default in checked.items():
        field = next(key.field for key in preset_schema.KEYS if key.path == path)
        assert getattr(plan, field) == shown[default], path


def test_what_is_supported_is_told() -> None:
    assert set(QUANTIZATIONS) == set(re.findall(r"`(q\d\w+)`", README))
    for family in FAMILIES:
        assert f"`{family}`" in README


def test_exit_codes_are_those_of_the_errors() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.WizardError)]
    assert [int(code) for code, _ in table("Code")] == sorted({0} | {c.exit_code for c in classes})


def test_the_files_of_an_export_are_told(tmp_path: Path) -> None:
    """A real export, without its library, holds the files of the table and no others."""
    command = [sys.executable, "-P", "-m", "tui", "--preset", str(DEMO), "--no-compile", "--output"]
    subprocess.run([*command, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    told = [name for row in table("File") for name in re.findall(r"`([\w.*\-]+)`", row[0])]
    written = {path.name for path in tmp_path.iterdir()} | {library_name(preset.load(str(DEMO)))}
    more_tokenizer_files, state = "tokenizer_config.json", ".mlc-wizard"
    assert {re.sub(r"_\d+\.bin", "_*.bin", name) for name in written} == {*told, more_tokenizer_files, state}


def test_the_record_is_that_of_the_demo(tmp_path: Path) -> None:
    """The snippet's fields are those that a run writes, with its values, and the two that it cannot know."""
    prepared = job.prepare(preset.load(str(DEMO)))
    assert prepared.facts is not None
    (tmp_path / library_name(prepared.plan)).write_bytes(b"\0asm\1\0\0\0")
    written = receipt.webllm(tmp_path, prepared.plan, prepared.facts)
    (snippet,) = blocks("js")
    shown = dict(re.findall(r"^  (\w+): (.*),$", snippet, re.MULTILINE))
    urls = {name: json.loads(shown.pop(name)) for name in written["to_fill_in"]}
    record = {name: json.loads(re.sub(r"(\w+):", r'"\1":', value)) for name, value in shown.items()}
    assert record == written["model_record"]
    assert urls["model_lib"] == f"{urls['model']}/resolve/main/{library_name(prepared.plan)}"


def test_the_output_shown_is_that_of_a_run() -> None:
    """Its stages and files; times and places are those of some machine."""
    shown = next(block for block in blocks("") if "mlc-wizard --preset" in block)
    plan = preset.load(str(DEMO))
    for number, command in enumerate(commands := job.prepare(plan).commands(), 1):
        assert f"[{number}/{len(commands)}] {command.stage}\n" in shown
        flags = [word for word in command.argv if word.startswith("--") or word in QUANTIZATIONS]
        assert all(flag in shown for flag in flags)
    for name in ("mlc-chat-config.json", "tensor-cache.json", library_name(plan), "export-receipt.json"):
        assert name in shown


def test_the_two_commands_do_all_the_set_up() -> None:
    assert "pip install . && .venv/bin/mlc-wizard --preset demo.toml" in README
    (tests,) = [command for command in COMMANDS if command[-1] == "tests/run.py"]
    assert (ROOT / tests[-1]).is_file()
    assert " ".join(tests) in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_ci_and_the_order_of_tests_name_files_that_are_there() -> None:
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    named = re.findall(r"tests/\w+\.py", workflow)
    assert len(named) > 10
    named += [f"tests/{name}.py" for name in LONGEST]
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def architecture() -> tuple[str, str]:
    """The page, and the map on it."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (drawn,) = re.findall(r"^## The map\n\n```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return page, drawn


def test_every_module_has_a_place_on_the_map() -> None:
    _, drawn = architecture()
    for folder in ("engine", "engine/embedded", "tui"):
        for path in (ROOT / folder).iterdir():
            name = f"{path.name}/" if path.is_dir() else path.name
            if not name.startswith("__") and name.endswith(("/", ".py")):
                assert re.search(rf"(?<!\w){re.escape(name)}", drawn), path


def test_the_map_of_the_architecture_page_is_of_this_house() -> None:
    page, drawn = architecture()
    folders: dict[int, Path] = {-2: ROOT}
    for line in drawn.splitlines():
        indent = len(line) - len(line.lstrip())
        parent = folders[max(level for level in folders if level < indent)]
        names = re.split(r"  +|, +", line.strip())
        for name in (n for n in names if re.fullmatch(r"[\w./]+(\.py|/)", n)):
            assert (parent / name).exists(), name
            if name.endswith("/"):
                folders = {level: path for level, path in folders.items() if level < indent}
                folders[indent] = parent / name
    mentioned = re.findall(r"`([\w/]+\.(?:py|md|toml))`", page)
    for name in mentioned:
        places = (ROOT, ROOT / "engine", ROOT / "engine" / "embedded", ROOT / "tui")
        known = any((place / name).exists() for place in places)
        assert known, name


def test_the_keys_are_those_of_the_screens() -> None:
    classes = (WizardApp, StepScreen, AdvisedStep, ReviewScreen, RunScreen, ResultScreen, ToolchainScreen)
    bound = {
        key.strip().replace("question_mark", "?")
        for screen in classes
        for binding in screen.BINDINGS
        if isinstance(binding, Binding)
        for key in binding.key.split(",")
    }
    told = [key for row in table("Keys") for key in re.findall(r"`([^`]+)`", row[0])]
    assert len(told) >= 12
    assert set(told) <= bound


def test_the_version_is_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([\w.]+)\]", changelog, re.MULTILINE)[0] == project["version"]
    assert project["description"] in README
