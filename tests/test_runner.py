"""engine.runner with real stages on the golden models: what runs, what is kept, what is run again."""

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from runner_support import FILES, GEMMA, GOLDEN, ended, failure, finish, outcomes, plan_for, visible

from engine import runner
from engine.artifacts import binaries
from engine.errors import UsageError
from engine.events import Advised, Progress, RunStarted, StageEnded, StageStarted
from engine.plan import ExportPlan
from engine.run.job import prepare
from engine.shell import shell_line


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished export; nobody changes it."""
    plan = plan_for(tmp_path_factory.mktemp("exported"))
    assert ended(finish(plan)).exit_code == 0
    return plan.output


@pytest.fixture
def finished(exported: Path, tmp_path: Path) -> ExportPlan:
    """A plan whose export is there, the file times kept: where it lies does not matter."""
    plan = plan_for(tmp_path)
    shutil.copytree(exported, plan.output)
    return plan


def test_a_run_from_start_to_finish(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    events = finish(plan)
    started, *_ = events
    assert isinstance(started, RunStarted)
    assert started.stages == ("convert_weight", "gen_config", "verify")
    assert outcomes(events) == dict.fromkeys(started.stages, "done")
    end = ended(events)
    assert (end.outcome, end.exit_code) == ("done", 0)
    assert end.checks
    assert all(check.passed for check in end.checks)
    assert set(visible(plan.output)) == FILES
    assert dict(end.files) == {
        name: (plan.output / name).stat().st_size for name in {*FILES, "export-receipt.json"}
    }
    golden = json.loads((GEMMA / "expected/q4f16_1/tensor-cache.json").read_text())
    ours = json.loads((plan.output / "tensor-cache.json").read_text())
    assert [s["md5sum"] for s in ours["records"]] == [s["md5sum"] for s in golden["records"]]
    progress = [e for e in events if isinstance(e, Progress) and e.stage == "convert_weight"]
    assert progress[-1].done == progress[-1].total
    advice = [i for i, e in enumerate(events) if isinstance(e, Advised)]
    first_stage = next(i for i, e in enumerate(events) if isinstance(e, StageStarted))
    assert advice
    assert max(advice) < first_stage
    left = {p.name for p in (plan.output / ".mlc-wizard").iterdir()}
    assert left <= {"lock", "plan.toml", "state.json"}


def test_dry_run_log_and_run_have_the_same_commands(tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "a b")
    shown = [command.argv for command in prepare(plan).commands()]
    assert not plan.output.exists()
    run = [e.command for e in finish(plan) if isinstance(e, StageStarted)]
    assert run == shown
    log = (plan.output / "mlc-wizard.log").read_text()
    for argv in shown:
        assert f"$ {shell_line(argv)}\n" in log


def test_the_receipt(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    events = finish(plan)
    receipt = json.loads((plan.output / "export-receipt.json").read_text())
    assert {f["name"]: f["sha256"] for f in receipt["files"]} == visible(plan.output)
    assert [c["name"] for c in receipt["checks"]] == [c.name for c in ended(events).checks]
    assert set(receipt["seconds"]) == {"convert_weight", "gen_config", "verify"}
    assert 'mode = "q4f16_1"' in receipt["preset"]
    assert receipt["source"]["model_type"] == "gemma3_text"
    assert "webllm" not in receipt


def test_the_receipt_of_a_library_for_an_app(finished: ExportPlan) -> None:
    """model_lib is what `mlc_llm package` finds in the archive: model_lib + ___tvm_ffi__library_bin."""
    plan = dataclasses.replace(finished, compile=True, device="android")
    assert ended(finish(plan)).exit_code == 0
    receipt = json.loads((plan.output / "export-receipt.json").read_text())
    package = receipt["mlc_package"]
    (model,) = package["model_list"]
    assert (package["device"], model["model_id"]) == ("android", "hf-q4f16_1-MLC")
    assert 0 < model["estimated_vram_bytes"] < 10 << 20
    assert package["model_lib_path_for_prepare_libs"] == {model["model_lib"]: "model-android.tar"}
    exported = {symbol for o in binaries.read(plan.output / "model-android.tar") for symbol in o.exported}
    assert f"{model['model_lib']}___tvm_ffi__library_bin" in exported
    assert receipt["library"] == {
        "library": "model-android.tar",
        "host": "aarch64-linux-android",
        "processor": "generic",
        "system_lib_prefix": f"{model['model_lib']}_",
    }
    assert "webllm" not in receipt


def test_compile_is_redone_for_the_configuration_and_its_own_flags(finished: ExportPlan) -> None:
    plan = dataclasses.replace(finished, compile=True)
    first = finish(plan)
    expected = dict.fromkeys(("convert_weight", "gen_config"), "skipped") | {
        "compile": "done",
        "verify": "done",
    }
    assert outcomes(first) == expected
    assert "library" in [check.name for check in ended(first).checks]
    webllm = json.loads((plan.output / "export-receipt.json").read_text())["webllm"]
    record = webllm["model_record"]
    assert record["model_id"] == "hf-q4f16_1-MLC"
    assert record["required_features"] == ["shader-f16"]
    assert record["overrides"] == {"context_window_size": 256}
    assert 0 < record["vram_required_MB"] < 10
    assert record["low_resource_required"] is True
    assert set(webllm["to_fill_in"]) == {"model", "model_lib"}
    again = finish(plan)
    assert outcomes(again) == expected | {"compile": "skipped"}
    wider = outcomes(finish(dataclasses.replace(plan, context_window_size=128)))
    assert (wider["convert_weight"], wider["gen_config"], wider["compile"]) == ("skipped", "done", "done")
    without = finish(dataclasses.replace(plan, context_window_size=128, compile=False))
    assert ended(without).exit_code == 0
    assert not (plan.output / "model-webgpu.wasm").exists()


def test_a_second_run_skips_what_is_finished(finished: ExportPlan) -> None:
    plan = finished
    before = {p.name: p.stat().st_mtime_ns for p in plan.output.glob("*.bin")}
    events = finish(plan)
    assert outcomes(events) == {"convert_weight": "skipped", "gen_config": "skipped", "verify": "done"}
    assert {p.name: p.stat().st_mtime_ns for p in plan.output.glob("*.bin")} == before
    assert all(check.passed for check in ended(events).checks)
    fresh = finish(plan, fresh=True)
    assert set(outcomes(fresh).values()) == {"done"}


@pytest.mark.parametrize(
    ("changes", "convert", "config"),
    [
        ({"context_window_size": 128}, "skipped", "done"),
        ({"conv_template": "gemma_instruction"}, "skipped", "done"),
        ({"quantization": "q0f32"}, "done", "done"),
        ({"source": str(GOLDEN / "llama_tied" / "hf")}, "done", "done"),
        ({"description": "only words"}, "skipped", "skipped"),
        ({"device": "cpu"}, "skipped", "skipped"),
    ],
)
def test_a_change_redoes_what_depends_on_it(
    finished: ExportPlan, tmp_path: Path, changes: dict[str, object], convert: str, config: str
) -> None:
    changed = dataclasses.replace(finished, **changes)  # type: ignore[arg-type]
    assert outcomes(finish(changed)) == {"convert_weight": convert, "gen_config": config, "verify": "done"}
    alone = dataclasses.replace(changed, output=tmp_path / "alone")
    finish(alone)
    assert visible(changed.output) == visible(alone.output)


@pytest.mark.parametrize(
    ("name", "redone"),
    [
        ("model.safetensors", {"convert_weight"}),
        ("tokenizer.json", {"gen_config"}),
        ("config.json", {"convert_weight", "gen_config"}),
        ("README.md", set()),
    ],
)
def test_a_changed_source_redoes_what_reads_it(tmp_path: Path, name: str, redone: set[str]) -> None:
    source = shutil.copytree(GEMMA / "hf", tmp_path / "model")
    plan = plan_for(tmp_path, source=str(source))
    finish(plan)
    path = source / name
    if path.suffix == ".safetensors":
        os.utime(path, ns=(1, 1))
    else:
        path.write_text((path.read_text() if path.exists() else "") + "\n")
    found = {stage for stage, outcome in outcomes(finish(plan)).items() if outcome == "done"}
    assert found == redone | {"verify"}


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("params_shard_0.bin", delete),
        ("params_shard_0.bin", truncate),
        ("params_shard_0.bin", flip),
        ("tensor-cache.json", truncate),
        ("ndarray-cache.json", delete),
        ("mlc-chat-config.json", flip),
        ("tokenizer.json", truncate),
        ("tokenizer_config.json", delete),
    ],
)
def test_a_damaged_file_makes_its_stage_run_again(
    finished: ExportPlan, name: str, damage: Callable[[Path], None]
) -> None:
    plan = finished
    good = visible(plan.output)
    damage(plan.output / name)
    found = outcomes(finish(plan))
    owner = "gen_config" if name.startswith(("mlc", "tok")) else "convert_weight"
    assert found.pop(owner) == "done"
    assert set(found.values()) == {"skipped", "done"}
    assert visible(plan.output) == good


def test_a_copy_with_other_times_is_still_finished(exported: Path, tmp_path: Path) -> None:
    moved = plan_for(tmp_path)
    shutil.copytree(exported, moved.output, copy_function=shutil.copyfile)
    found = outcomes(finish(moved))
    assert (found["convert_weight"], found["gen_config"]) == ("skipped", "skipped")


def test_damage_that_hides_is_found_by_verify_and_mended_by_the_next_run(finished: ExportPlan) -> None:
    plan = finished
    shard = plan.output / "params_shard_0.bin"
    status = shard.stat()
    flip(shard)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    events = finish(plan)
    assert ended(events).exit_code == 1
    told = failure(events)
    assert told.stage == "verify"
    assert "shard contents: params_shard_0.bin has the MD5" in told.what
    assert told.why == "Changed since it was written: params_shard_0.bin."
    assert not (plan.output / "export-receipt.json").exists()
    again = finish(plan)
    assert outcomes(again) == {"convert_weight": "done", "gen_config": "skipped", "verify": "done"}
    assert ended(again).exit_code == 0


def test_files_of_others_stay(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    plan.output.mkdir()
    (plan.output / "README.md").write_text("mine")
    (plan.output / "sub").mkdir()
    (plan.output / "sub" / "params_shard_0.bin").write_text("mine too")
    for changes in ({}, {"quantization": "q0f16"}):
        finish(dataclasses.replace(plan, **changes), fresh=True)
    assert (plan.output / "README.md").read_text() == "mine"
    assert (plan.output / "sub" / "params_shard_0.bin").read_text() == "mine too"


@pytest.mark.parametrize("name", ["params_shard_3.bin", "tensor-cache.json", "tokenizer.json"])
def test_an_export_of_others_is_not_replaced(tmp_path: Path, name: str) -> None:
    plan = plan_for(tmp_path)
    plan.output.mkdir()
    (plan.output / name).write_text("mine")
    for fresh in (False, True):
        with pytest.raises(UsageError, match=f"did not write there: {name}"):
            finish(plan, fresh=fresh)
    assert [path.name for path in plan.output.iterdir()] == [name]


def test_a_lost_state_leaves_what_the_receipt_proves_ours(finished: ExportPlan) -> None:
    plan = finished
    good = visible(plan.output)
    (plan.output / ".mlc-wizard" / "state.json").write_text("{ not json")
    assert set(outcomes(finish(plan)).values()) == {"done"}
    assert visible(plan.output) == good
    shutil.rmtree(plan.output / ".mlc-wizard")
    (plan.output / "tokenizer.json").write_text("changed by its owner")
    with pytest.raises(UsageError, match=r"did not write there: tokenizer\.json"):
        finish(plan)


def test_a_hub_model_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, offline: fetch tells folder and commit, and is skipped while both hold."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "home" / "hub" / "models--someone--tiny"
    shutil.copytree(GOLDEN / "llama_tied" / "hf", repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    plan = plan_for(tmp_path, source="someone/tiny")
    assert "SNAPSHOT" in prepare(plan).commands()[1].argv
    events = finish(plan)
    assert outcomes(events) == dict.fromkeys(("fetch", "convert_weight", "gen_config", "verify"), "done")
    fetched = next(i for i, e in enumerate(events) if isinstance(e, StageEnded))
    early = [e.code for e in events[:fetched] if isinstance(e, Advised)]
    late = [e.code for e in events[fetched:] if isinstance(e, Advised)]
    assert "shader-f16" in early
    assert "q4-small-model" in late
    assert not set(early) & set(late)
    receipt = json.loads((plan.output / "export-receipt.json").read_text())
    assert receipt["source"]["revision"] == commit
    assert f'revision = "{commit}"' in receipt["preset"]
    again = finish(plan)
    assert outcomes(again)["fetch"] == "skipped"
    assert outcomes(again)["convert_weight"] == "skipped"
    shutil.rmtree(repo)
    gone = finish(plan)
    assert failure(gone).stage == "fetch"
    assert "someone/tiny" in failure(gone).what


@pytest.mark.parametrize(
    ("name", "redone"), [("config.json", "convert_weight"), ("tokenizer.json", "gen_config")]
)
def test_a_model_that_changes_during_the_run_is_no_export(tmp_path: Path, name: str, redone: str) -> None:
    """Its parts, each right by itself, may be of two models; that is told, and the next run mends it."""
    source = tmp_path / "model"
    shutil.copytree(GEMMA / "hf", source, copy_function=shutil.copyfile)
    plan = plan_for(tmp_path, source=str(source))
    events = []
    for event in runner.run(plan, threading.Event()):
        events.append(event)
        if isinstance(event, StageEnded) and event.stage == "gen_config":
            (source / name).write_text((source / name).read_text() + "\n")
    told = failure(events)
    assert told.stage == "verify"
    assert f"{redone}" in told.what
    assert told.fix == "resume"
    assert not (plan.output / "export-receipt.json").exists()
    again = finish(plan)
    assert outcomes(again)[redone] == "done"
    assert ended(again).outcome == "done"
