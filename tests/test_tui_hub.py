"""The step Model with a Hub on loopback and the real client: facts as they arrive, errors, and no network."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hub_client import Client, files_of
from hub_server import Hub, Repository, serving
from textual.widgets import Input, Static
from tui_support import at_every_size, settled, snap, until, wizard_at, words

from engine import preset
from engine.estimate import estimate
from engine.model import facts as model_facts
from engine.plan import ExportPlan
from tui import describe
from tui.app import WizardApp
from tui.draft import Draft
from tui.screens import save


@pytest.fixture
def hub(wizard_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving(
        acme__tiny=Repository(files=files_of("gemma3_text")),
        acme__sharded=Repository(files=files_of("llama")),
        acme__gated=Repository(files=files_of("llama_tied"), gated=True),
    ) as running:
        for name, value in {
            "HF_ENDPOINT": running.endpoint,
            "HF_HOME": str(wizard_home.parent / "hf"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        yield running


async def type_source(pilot, text: str) -> None:
    """Type, and let the hand rest."""
    await pilot.press("ctrl+u", *text)
    await pilot.pause()
    await until(pilot, lambda: pilot.app.screen._timer is None, "a look at what was typed", settle=False)


def state(app: WizardApp) -> str:
    return str(app.screen.query_one("#state", Static).content)


def shown(app: WizardApp) -> str:
    return str(app.screen.query_one("#facts", Static).content)


def looking() -> list[psutil.Process]:
    """The children that ask the Hub."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "engine.model.look" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def fetched(hub: Hub, repo_id: str, cache: Path) -> Path:
    """The folder of a model, fetched as a run does it."""
    return Client(hub, cache.parent).fetch(repo_id, HF_HUB_CACHE=str(cache)).folder


async def test_facts_fill_in_as_they_are_read_and_the_plan_takes_the_commit(
    hub: Hub, wizard_home: Path
) -> None:
    hub.stall = {"model.safetensors"}
    app = wizard_at("model")
    async with app.run_test(size=(110, 32)) as pilot:
        await settled(pilot)
        await type_source(pilot, "acme/tiny")
        await until(pilot, lambda: "headers" in state(app), "facts by config.json", settle=False)
        assert "by config.json" in shown(app)
        assert not app.screen.complete
        hub.resume.set()
        await until(pilot, lambda: not app.draft.reading, "exact facts")
        commit = hub.repositories["acme/tiny"].commit
        assert f"on the Hub, commit {commit[:12]}" in state(app)
        assert "by config.json" not in shown(app)
        size = sum(len(data) for name, data in files_of("gemma3_text").items())
        assert app.draft.facts.download_bytes == size - sum(
            len(files_of("gemma3_text")[name])
            for name in ("config.json", "tokenizer_config.json")
            if name in files_of("gemma3_text")
        )
        assert describe.megabytes(app.draft.facts.download_bytes) in shown(app)
        assert app.screen.query_one("#revision", Input).value == "", "nobody chose a revision"
        await pilot.press("ctrl+n")
        await settled(pilot)
        assert app.screen.STEP == "quantize"
        plan = app.draft.plan()
        assert plan.revision == commit
        golden = model_facts.read(Path(__file__).parent / "data" / "golden" / "gemma3_text" / "hf")
        sizes = estimate(golden, plan)
        assert f"{sizes.disk_bytes:,} bytes" in words(app)
        app.go("review")
        await settled(pilot)
        await until(pilot, lambda: commit[:12] in words(app), "the commit in the plan")
        assert f"{describe.megabytes(app.draft.facts.download_bytes)} from the Hub" in words(app)
        found = app.screen._current
        assert any(f"--revision {commit}" in command for command in found.commands)
        written = preset.place_of("kept")
        preset.save(save.replayable(app.draft.plan(), app.draft.facts), written)
        assert preset.load(str(written)).revision == commit
        app.go("model")
        await settled(pilot)
        assert app.screen.query_one("#revision", Input).value == ""


async def test_a_tag_stays_in_the_field_and_its_commit_goes_into_the_plan(hub: Hub) -> None:
    hub.repositories["acme/tiny"].revisions = ("main", "v1")
    app = wizard_at(
        "model", Draft.from_plan(ExportPlan(source="acme/tiny", revision="v1", quantization="q0f16"))
    )
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.draft.facts is not None and not app.draft.reading, "facts")
        assert app.draft.plan().revision == hub.repositories["acme/tiny"].commit
        assert app.screen.query_one("#revision", Input).value == "v1"


async def test_what_the_hub_refuses_stands_below_the_field(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "acme/gated")
        await settled(pilot)
        assert "acme/gated is gated" in state(app)
        assert "hf auth login" in state(app)
        assert app.screen.query_one("#state").has_class("broken")
        await pilot.press("ctrl+n")
        assert app.screen.STEP == "model"
        monkeypatch.setenv("HF_TOKEN", "hf_right")  # as after `hf auth login` in another terminal
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.STEP == "quantize", "the next step, with the licence accepted")
        monkeypatch.delenv("HF_TOKEN")
        await pilot.press("escape")
        await settled(pilot)
        await type_source(pilot, "amce/tiny")
        await settled(pilot)
        assert "Did you mean acme/tiny?" in state(app)
        assert not app.screen.complete


async def test_without_a_network_one_may_go_on(hub: Hub) -> None:
    hub.down = True
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "acme/tiny")
        await settled(pilot)
        assert "error 503" in state(app)
        assert "You can go on" in state(app)
        assert not app.screen.query_one("#state").has_class("broken")
        await pilot.press("ctrl+n")
        await settled(pilot)
        assert app.screen.STEP == "quantize"
        assert app.draft.plan().revision == ""
        assert app.draft.problems() == []
        hub.down = False
        await pilot.press("escape")
        await until(
            pilot, lambda: app.draft.facts is not None and not app.draft.reading, "facts, with a network"
        )


@pytest.mark.parametrize("how", ["down", "offline"])
async def test_without_a_network_a_fetched_model_serves(
    hub: Hub, wizard_home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder = fetched(hub, "acme/tiny", wizard_home.parent / "hub")
    hub.down = True
    if how == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "acme/tiny")
        await settled(pilot)
        assert f"fetched from the Hub before, commit {folder.name[:12]}" in state(app)
        assert app.draft.facts.folder == folder
        assert app.draft.plan().revision == folder.name
        assert app.screen.complete


async def test_a_newer_commit_replaces_the_fetched_one_unless_somebody_went_on(
    hub: Hub, wizard_home: Path
) -> None:
    old = fetched(hub, "acme/tiny", wizard_home.parent / "hub").name
    hub.repositories["acme/tiny"].files["config.json"] += b"\n"
    newer = hub.repositories["acme/tiny"].commit
    hub.silent = True
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "acme/tiny")
        await until(pilot, lambda: app.draft.asking, "the fetched model", settle=False)
        assert "asking for a newer one" in state(app)
        assert app.draft.plan().revision == old
        await asyncio.to_thread(hub.stalled.wait, 60)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.screen.STEP == "quantize", "the next step")
        await until(pilot, lambda: not looking(), "the end of the child")
        assert app.draft.plan().revision == old
        hub.silent = False
        hub.resume.set()
        app.go("model")
        app.read_facts()
        await until(
            pilot, lambda: app.draft.plan().revision == newer and not app.draft.asking, "the newer one"
        )
        assert app.draft.facts.remote is not None


@pytest.mark.parametrize("how", ["typing", "quitting"])
async def test_a_look_ends_when_nobody_wants_it(hub: Hub, how: str) -> None:
    hub.silent = True
    app = wizard_at("model")
    async with app.run_test() as pilot:
        await settled(pilot)
        await type_source(pilot, "acme/tiny")
        await until(pilot, lambda: bool(looking()), "the child", settle=False)
        [child] = [c for c in looking() if "engine.supervisor" not in " ".join(c.cmdline())][-1:]
        if how == "typing":
            await pilot.press("x")
            await until(pilot, lambda: not child.is_running() or child.status() == "zombie", "its end")
        else:
            app.exit(0)
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running()


@at_every_size
@pytest.mark.parametrize("name", ["facts", "by-config", "refused", "offline"])
def test_looks_as_before(
    snap_compare, hub: Hub, size: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    match name:
        case "by-config":
            del hub.repositories["acme/tiny"].files["model.safetensors"]
            hub.repositories["acme/tiny"].files["pytorch_model.bin"] = b"p" * 660_000
        case "refused":
            monkeypatch.setenv("HF_TOKEN", "hf_expired")
        case "offline":
            monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    async def type_it(pilot) -> None:
        await type_source(pilot, "acme/tiny")

    assert snap(snap_compare, wizard_at("model", Draft()), size, type_it)
