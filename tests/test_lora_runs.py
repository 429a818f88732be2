"""Runs with a LoRA adapter: from presets and folders, what makes a stage run again, what a dry run shows."""

import json
import shutil
from pathlib import Path

import pytest
from runner_support import finish, outcomes, plan_for, visible

from engine import headless, preset
from engine.errors import UsageError
from engine.plan import ExportPlan
from engine.run import job
from engine.run.receipt import plan_of

BASE = Path(__file__).parent / "data" / "golden" / "llama_tied" / "hf"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A small adapter of the golden llama_tied model."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path / "adapter"
    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    ones = {f"{name}A.weight": np.ones((1, 64), np.float32), f"{name}B.weight": np.ones((64, 1), np.float32)}
    save_file(ones, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 2}))
    return folder


def lora_plan(folder: Path, adapter: Path | str) -> ExportPlan:
    return plan_for(folder, source=str(BASE), lora_adapter=str(adapter))


def test_the_weights_depend_on_the_adapter_and_nothing_else_does(tmp_path: Path, adapter: Path) -> None:
    plain = outcomes(finish(plan_for(tmp_path, source=str(BASE))))
    assert set(plain.values()) == {"done"}
    before = visible(tmp_path / "out")
    first = outcomes(finish(lora_plan(tmp_path, adapter)))
    assert (first["convert_weight"], first["gen_config"]) == ("done", "skipped")
    with_adapter = visible(tmp_path / "out")
    assert with_adapter["params_shard_0.bin"] != before["params_shard_0.bin"]
    assert with_adapter["mlc-chat-config.json"] == before["mlc-chat-config.json"]
    assert outcomes(finish(lora_plan(tmp_path, adapter)))["convert_weight"] == "skipped"
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 2', '"lora_alpha": 3'))
    assert outcomes(finish(lora_plan(tmp_path, adapter)))["convert_weight"] == "done"
    assert visible(tmp_path / "out")["params_shard_0.bin"] != with_adapter["params_shard_0.bin"]
    assert plan_of(tmp_path / "out").lora_adapter == str(adapter)


def test_a_preset_names_it_relative_to_itself(tmp_path: Path, adapter: Path) -> None:
    text = f"version = 1\n[model]\nsource = {json.dumps(str(BASE))}\nlora_adapter = 'adapter'\n"
    (tmp_path / "p.toml").write_text(text + '[quantization]\nmode = "q0f16"\n[target]\ncompile = false\n')
    plan = preset.load(str(tmp_path / "p.toml"))
    assert plan.lora_adapter == str(adapter.resolve())
    [convert, *_] = job.prepare(plan).commands()
    at = convert.argv.index("--lora-adapter")
    assert convert.argv[at + 1] == str(adapter.resolve())


def test_one_that_does_not_fit_is_told_before_any_work(tmp_path: Path, adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 5, "lora_alpha": 2}')
    with pytest.raises(UsageError, match="the rank 5, its weights have 1"):
        job.prepare(lora_plan(tmp_path, adapter))
    with pytest.raises(UsageError, match=r"has no adapter_config\.json"):
        job.prepare(lora_plan(tmp_path, tmp_path / "nowhere"))


def in_cache(hub: Path, repo_id: str, commit: str, files: Path) -> None:
    """Put a folder into a cache of the Hub client's, as its newest revision."""
    repository = hub / f"models--{repo_id.replace('/', '--')}"
    shutil.copytree(files, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


@pytest.mark.parametrize("base_on_hub", [True, False])
def test_an_adapter_of_the_hub_is_fetched_and_its_commit_kept(
    base_on_hub: bool, tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real client, offline, with a cache that has both."""
    hub, commit = tmp_path / "home" / "hub", "0123456789abcdef0123456789abcdef01234567"
    in_cache(hub, "org/base", "f" * 40, BASE)
    in_cache(hub, "org/lora", commit, adapter)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = "org/base" if base_on_hub else str(BASE)
    plan = plan_for(tmp_path, source=source, lora_adapter="org/lora")
    events = finish(plan)
    assert set(outcomes(events).values()) == {"done"}
    merged = visible(tmp_path / "out")
    assert plan_of(tmp_path / "out").lora_adapter == f"org/lora@{commit}"
    receipt = json.loads((tmp_path / "out" / "export-receipt.json").read_text())
    assert receipt["source"]["lora_adapter"] == f"org/lora@{commit}"
    assert receipt["source"]["revision"] == ("f" * 40 if base_on_hub else "")
    again = outcomes(finish(plan))
    assert (again["fetch"], again["convert_weight"]) == ("skipped", "skipped")
    outcomes(finish(lora_plan(tmp_path / "folder", adapter)))
    assert visible(tmp_path / "folder" / "out")["params_shard_0.bin"] == merged["params_shard_0.bin"]


@pytest.mark.parametrize(
    ("source", "adapter_id", "placeholders", "fetched"),
    [
        ("org/model", "", ["SNAPSHOT stands for the folder that the first"], ["org/model"]),
        (str(BASE), "org/lora", ["ADAPTER stands for the folder that the first"], ["org/lora"]),
        (
            "org/model",
            "org/lora@v2",
            ["ADAPTER and SNAPSHOT stand for the folders that the first two"],
            ["org/lora --revision v2 --lora-adapter", "org/model"],
        ),
    ],
)
def test_a_dry_run_shows_what_is_fetched(
    source: str,
    adapter_id: str,
    placeholders: list[str],
    fetched: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert headless.dry_run(plan_for(tmp_path, source=source, lora_adapter=adapter_id)) == 0
    captured = capsys.readouterr()
    for part in placeholders:
        assert part in captured.err
    lines = [line for line in captured.out.splitlines() if "engine.model.hub" in line]
    assert len(lines) == len(fetched)
    for line, part in zip(lines, fetched, strict=True):
        assert part in line
    assert ("--lora-adapter ADAPTER" in captured.out) == bool(adapter_id)
