"""Presets: where they are found and listed, and those that are shipped."""

import dataclasses
from pathlib import Path

import pytest
from conftest import GOLDEN
from native_libraries import program
from preset_support import MINIMAL, refused, user, write

from engine import headless, preset
from engine.errors import UsageError
from engine.plan import BUILTIN_DEMO

__all__ = ["user"]


def test_names_are_looked_up_here_then_by_the_user_then_shipped(user: Path) -> None:
    assert preset.find("demo") == preset.find("demo.toml") == preset.shipped_folder() / "demo.toml"
    mine = Path(write(user, MINIMAL, "demo.toml"))
    assert preset.find("demo") == preset.find("demo.toml") == mine
    Path("demo").mkdir()  # a folder of that name is no preset
    assert preset.find("demo") == mine
    write(Path.cwd(), MINIMAL, "demo.toml")
    assert preset.find("demo") == preset.find("demo.toml") == Path("demo.toml")


def test_an_unknown_name_lists_and_suggests(user: Path) -> None:
    error = refused("gema270m")
    assert "gemma270m" in error.why
    assert error.remedy == "Did you mean gemma270m?"
    Path("folder").mkdir()
    assert "is a folder" in str(refused("folder"))


def test_listing_shows_broken_presets_with_their_reason(user: Path) -> None:
    write(user, MINIMAL.replace("version = 1", 'version = 1\ndescription = "mine"'), "mine.toml")
    write(user, "version = 9", "broken.toml")
    write(user, MINIMAL, "demo.toml")
    entries = {e.name: e for e in preset.list_presets()}
    assert (entries["mine"].origin, entries["mine"].description) == ("user", "mine")
    assert "version = 9" in entries["broken"].error
    assert entries["demo"].path == user / "demo.toml"
    assert (entries["gemma270m"].origin, entries["gemma270m"].error) == ("shipped", "")
    assert entries["gemma270m"].description


def test_shipped_presets_are_what_they_promise(user: Path) -> None:
    gemma = preset.load("gemma270m")
    assert (gemma.source, gemma.quantization) == ("google/functiongemma-270m-it", "q0f16")
    assert (gemma.context_window_size, gemma.prefill_chunk_size) == (4096, 512)
    assert (gemma.device, gemma.output) == ("webgpu", Path("working/mlc-model"))
    demo = preset.load("demo")
    assert (demo.source, demo.quantization, demo.device) == (BUILTIN_DEMO, "q4f32_1", "webgpu")


SHIPPED = {
    "demo": ("webgpu", "--context-window-size 1024 --prefill-chunk-size 256"),
    "gemma270m": ("webgpu", "--context-window-size 4096 --prefill-chunk-size 512"),
    "redpajama-3b-cuda": ("cuda", "--conv-template redpajama_chat -o"),
    "redpajama-3b-webgpu": ("webgpu", "--conv-template redpajama_chat -o"),
    "redpajama-3b-android": ("android", "--context-window-size 768 -o"),
    "llama2-7b-webgpu": ("webgpu", "--context-window-size 2048 -o"),
    "llama2-7b-metal": ("metal", "--conv-template auto -o"),
    "mistral-7b-webgpu": ("webgpu", "--sliding-window-size 4096 --prefill-chunk-size 1024 -o"),
    "mistral-7b-iphone": ("iphone", "--sliding-window-size 1024 --prefill-chunk-size 128 -o"),
}


def test_every_shipped_preset_is_told_in_one_plain_line(user: Path) -> None:
    entries = {entry.name: entry for entry in preset.list_presets()}
    assert entries.keys() == SHIPPED.keys()
    for entry in entries.values():
        assert not entry.error
        assert 20 <= len(entry.description) <= 100
        assert "\n" not in entry.description


@pytest.mark.parametrize("name", SHIPPED)
def test_a_dry_run_of_a_shipped_preset_shows_its_commands(
    name: str,
    user: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, flags = SHIPPED[name]
    plan = preset.load(name)
    assert plan.device == device
    program(tmp_path, "nvcc", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert headless.dry_run(plan) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "gen_config" in line and flags in line]
    assert f"--quantization {plan.quantization}" in line


def test_a_rolling_cache_is_for_models_whose_cache_rolls(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = dataclasses.replace(preset.load("mistral-7b-iphone"), device="webgpu")
    mistral = dataclasses.replace(plan, source=str(GOLDEN / "mistral" / "hf"))
    assert headless.dry_run(mistral) == 0
    assert "--sliding-window-size 1024" in capsys.readouterr().out
    gemma = dataclasses.replace(plan, source=str(GOLDEN / "gemma3_text" / "hf"))
    with pytest.raises(UsageError, match="1024: the cache of a gemma3_text model does not roll") as caught:
        headless.dry_run(gemma)
    assert "Leave sliding_window_size out" in (caught.value.remedy or "")
