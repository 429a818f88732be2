"""The step Model: what is typed, what is completed, what is read, and what is told."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from conftest import GOLDEN
from textual.widgets import Input, OptionList, Static
from tui_support import at_every_size, settled, snap, until, wizard_at

from engine.model import facts as model_facts
from engine.model import nearby
from engine.plan import BUILTIN_DEMO
from tui import facts_table
from tui.app import WizardApp
from tui.draft import Draft
from tui.widgets.source_input import complete_folder


@pytest.fixture
def here(wizard_home: Path) -> Path:
    """The current folder, with a model in it and a folder that holds none."""
    shutil.copytree(GOLDEN / "gemma3_text" / "hf", wizard_home / "gemma-tiny")
    (wizard_home / "empty").mkdir()
    return wizard_home


def in_hub_cache(home: Path, repo_id: str, model: Path) -> None:
    """Put `model` where the Hub client would."""
    repository = home.parent / "hub" / f"models--{repo_id.replace('/', '--')}"
    shutil.copytree(model, repository / "snapshots" / "c0ffee")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")


async def type_source(pilot, text: str) -> None:
    """Type, and let the hand rest."""
    await pilot.press(*("space" if key == " " else key for key in text))
    await pilot.pause()
    await until(pilot, lambda: pilot.app.screen._timer is None, "a look at what was typed")


def state(app: WizardApp) -> str:
    return str(app.screen.query_one("#state", Static).content)


async def test_facts_are_read_from_a_folder_in_another_thread(here: Path, monkeypatch) -> None:
    threads = []

    def read(*arguments):
        threads.append(threading.current_thread())
        return real(*arguments)

    real = model_facts.read
    monkeypatch.setattr(model_facts, "read", read)
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        assert not app.screen.complete
        await type_source(pilot, "./gemma-tiny")
        assert app.draft.plan().source == str((here / "gemma-tiny").resolve())
        assert app.draft.facts is not None
        shown = str(app.screen.query_one("#facts", Static).content)
        for _, value in facts_table.rows(app.draft.facts):
            assert value in shown
        assert app.screen.complete
        assert threads
        assert threading.main_thread() not in threads


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("./absent", "There is no folder"),
        ("./empty", "holds no weights"),
        ("gogle x", "neither a folder here nor a model id"),
        ("./file", "is a file, not a model folder"),
        ("./[red]x[/red]", "[red]x"),
    ],
)
async def test_errors_stand_below_the_field_and_block_the_way(here: Path, typed: str, said: str) -> None:
    (here / "file").write_text("")
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, typed)
        assert said in state(app)
        assert app.screen.query_one("#state").has_class("broken")
        await pilot.press("ctrl+n")
        assert app.screen.STEP == "model"
        await pilot.press("ctrl+u")
        await pilot.pause()
        assert state(app) == ""


async def test_a_model_that_no_compiler_knows_is_told(here: Path) -> None:
    config = json.loads((here / "gemma-tiny" / "config.json").read_text())
    config |= {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    (here / "gemma-tiny" / "config.json").write_text(json.dumps(config))
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "./gemma-tiny")
        assert "mamba" in state(app)
        assert not app.screen.complete
        assert "MambaForCausalLM" in str(app.screen.query_one("#facts", Static).content)


async def test_enter_goes_on_once_the_model_was_read(here: Path, monkeypatch) -> None:
    may_read = threading.Event()
    real = model_facts.read
    monkeypatch.setattr(model_facts, "read", lambda *a: may_read.wait(30) and real(*a))
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await pilot.press(*"./gemma-tiny", "enter")
        await pilot.pause()
        assert app.screen.STEP == "model"
        assert "reading" in state(app)
        may_read.set()
        await settled(pilot)
        assert app.screen.STEP == "quantize"


async def test_facts_of_a_model_that_was_left_are_dropped(here: Path, monkeypatch) -> None:
    may_read, begun = threading.Event(), threading.Event()
    real = model_facts.read

    def read(folder: Path, model_type: str) -> model_facts.ModelFacts:
        if folder.name == "gemma-tiny":
            begun.set()
            may_read.wait(30)
        return real(folder, model_type)

    monkeypatch.setattr(model_facts, "read", read)
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        app.draft.choose(source=str(here / "gemma-tiny"))
        app.read_facts()
        await pilot.pause()
        assert begun.wait(30)
        app.draft.choose(source=BUILTIN_DEMO)
        app.read_facts()
        await until(pilot, lambda: app.draft.facts is not None, "the facts of the demo")
        may_read.set()
        await settled(pilot)
        assert app.draft.facts.model_type == real(model_facts_folder()).model_type
        assert app.draft.facts.folder == model_facts_folder()


def model_facts_folder() -> Path:
    """The folder of the demo model."""
    from engine.model.source import DEMO_MODEL

    return DEMO_MODEL


async def test_back_and_forth_loses_nothing(here: Path) -> None:
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "./gem")
        app.action_start()
        await settled(pilot)
        app.go("model")
        await settled(pilot)
        field = app.screen.query_one("#source", Input)
        assert field.value == "./gem"
        field.cursor_position = len(field.value)
        await pilot.pause()
        field.value = "./gemma-tiny"
        app.screen.query_one("#conv_template", Input).value = "none"
        await pilot.press("ctrl+n")
        await settled(pilot)
        assert app.screen.STEP == "quantize"
        await pilot.press("escape")
        await settled(pilot)
        assert app.screen.query_one("#conv_template", Input).value == "none"
        plan = app.draft.plan()
        assert (Path(plan.source).name, plan.conv_template) == ("gemma-tiny", "none")
        assert app.draft.facts is not None


async def test_a_hub_id_is_taken_and_a_fetched_one_is_read(here: Path) -> None:
    in_hub_cache(here, "acme/tiny", GOLDEN / "llama" / "hf")
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "acme/other")
        assert app.draft.plan().source == "acme/other"
        assert app.draft.facts is None
        assert app.screen.complete
        assert "You can go on" in state(app)
        await pilot.press("ctrl+u")
        await type_source(pilot, "acme/tiny")
        assert app.draft.facts is not None
        assert app.draft.facts.model_type == "llama"


async def test_models_that_are_here_are_offered(here: Path) -> None:
    in_hub_cache(here, "acme/tiny", GOLDEN / "llama" / "hf")
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        offered = app.screen.query_one("#nearby", OptionList)
        assert [option.id for option in offered.options] == [
            BUILTIN_DEMO,
            f".{os.sep}gemma-tiny",
            "acme/tiny",
        ]
        offered.focus()
        await pilot.press("home", "j", "enter")
        await pilot.pause(0.5)
        await settled(pilot)
        assert Path(app.draft.plan().source).name == "gemma-tiny"
        assert not offered.display


async def test_tab_takes_the_completion_or_goes_on(here: Path) -> None:
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        field = app.screen.query_one("#source", Input)
        await type_source(pilot, "./ge")
        await pilot.press("tab")
        assert field.value == f".{os.sep}gemma-tiny"
        await pilot.pause(0.5)
        await settled(pilot)
        await pilot.press("ctrl+u")
        await type_source(pilot, "buil")
        await pilot.press("tab")
        assert field.value == BUILTIN_DEMO
        await pilot.pause(0.5)
        await settled(pilot)
        await pilot.press("tab")
        assert app.focused is not field


async def test_an_adapter_is_kept_as_a_preset_would_have_it(here: Path) -> None:
    app = wizard_at("model", Draft())
    (here / "lora").mkdir()
    async with app.run_test() as pilot:
        await settled(pilot)
        field = app.screen.query_one("#lora_adapter", Input)
        for typed, kept in (
            ("lora", str((here / "lora").resolve())),
            ("org/lora@v2", "org/lora@v2"),
            ("a b", "a b"),  # told at Review
            ("", ""),
        ):
            field.value = typed
            await settled(pilot)
            assert app.draft.plan().lora_adapter == kept


def test_complete_folder(tmp_path: Path, monkeypatch) -> None:
    for name in ("models", "more", ".hidden"):
        (tmp_path / name / "below").mkdir(parents=True)
    (tmp_path / "model.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    root = f"{tmp_path}{os.sep}"
    assert complete_folder(f"{root}mod") == f"{root}models{os.sep}"
    assert complete_folder(f"{root}models{os.sep}") == f"{root}models{os.sep}below{os.sep}"
    assert complete_folder(f"~{os.sep}mor") == f"~{os.sep}more{os.sep}"
    assert complete_folder(f".{os.sep}.h") == f".{os.sep}.hidden{os.sep}"
    assert complete_folder(f"{root}z") is None
    assert complete_folder(f"{root}absent{os.sep}x") is None
    assert complete_folder("mod") is None, "a name alone may be a Hub id"
    assert complete_folder("") is None
    assert complete_folder("\0/") is None


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_hub_cache_is_where_the_client_has_it(tmp_path: Path, monkeypatch, variable: str) -> None:
    import subprocess
    import sys

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert nearby.hub_cache() == Path(theirs.stdout.strip())


@at_every_size
@pytest.mark.parametrize("typed", ["", "gogle x", "./gemma-tiny"], ids=["empty", "error", "facts"])
def test_looks_as_before(snap_compare, here: Path, typed: str, size: tuple[int, int]) -> None:
    async def type_it(pilot) -> None:
        await type_source(pilot, typed)

    assert snap(snap_compare, wizard_at("model", Draft()), size, type_it)
