"""engine.runner: real stages on the golden models, and stand-in programs for how processes behave."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine import runner
from engine.backends import auto
from engine.backends.base import Folders, StageCommand, library_name, shell_line
from engine.errors import StageError, ToolchainError, UsageError
from engine.events import (
    Advised,
    Event,
    Output,
    Progress,
    RunEnded,
    RunStarted,
    StageEnded,
    StageName,
    StageStarted,
)
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan
from engine.run import disk
from engine.run.job import prepare
from engine.run.workspace import Workspace

GOLDEN = Path(__file__).parent / "data" / "golden"
GEMMA = GOLDEN / "gemma3_text"
FILES = {
    *("mlc-chat-config.json", "tensor-cache.json", "ndarray-cache.json", "params_shard_0.bin"),
    *("tokenizer.json", "tokenizer_config.json"),
}
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is killed in a forked copy")


def plan_for(folder: Path, **changes: object) -> ExportPlan:
    plan = ExportPlan(
        source=str(GEMMA / "hf"),
        quantization="q4f16_1",
        context_window_size=256,
        prefill_chunk_size=64,
        compile=False,
        output=folder / "out",
    )
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]


def finish(plan: ExportPlan, *, fresh: bool = False, backend: "StandIn | None" = None) -> list[Event]:
    return list(runner.run(plan, threading.Event(), fresh=fresh, backend=backend))


def outcomes(events: list[Event]) -> dict[str, str]:
    return {e.stage: e.outcome for e in events if isinstance(e, StageEnded)}


def ended(events: list[Event]) -> RunEnded:
    assert isinstance(events[-1], RunEnded)
    return events[-1]


def failure(events: list[Event]) -> StageEnded:
    (event,) = (e for e in events if isinstance(e, StageEnded) and e.outcome in ("failed", "cancelled"))
    return event


def visible(output: Path) -> dict[str, str]:
    """The SHA-256 of each file of the export by name; log and receipt hold times."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.iterdir())
        if path.is_file() and path.name not in ("mlc-wizard.log", "export-receipt.json")
    }


# --- real stages ---------------------------------------------------------------------------------


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
    assert "shard contents: params_shard_0.bin is" in told.what
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


# --- refused before any work ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"source": "/no/such/model"}, UsageError, "/no/such/model"),
        ({"backend": "mlc_llm"}, UsageError, "only the embedded backend"),
        ({"backend": "docker"}, UsageError, "only the embedded backend"),
        ({"device": "cuda", "compile": True}, UsageError, "--no-compile"),
        ({"device": "toaster", "compile": True}, UsageError, "is not a device"),
        ({"quantization": "q9"}, UsageError, "q4f16_1"),
        ({"prefill_chunk_size": 0}, UsageError, "prefill_chunk_size"),
        ({"prefill_chunk_size": 512}, UsageError, "prefill_chunk_size"),
        ({"source": "someone/model", "prefill_chunk_size": 512}, UsageError, "prefill_chunk_size"),
    ],
)
def test_refused_before_any_work(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    plan = plan_for(tmp_path, **changes)
    with pytest.raises(error) as caught:
        finish(plan)
    assert said in str(caught.value)
    assert not plan.output.exists()


def test_a_target_of_later_is_fine_without_compiling(tmp_path: Path) -> None:
    backend, reason = auto.choose(plan_for(tmp_path, device="cuda"), None)
    assert backend.name == "embedded"
    assert "q4f16_1" in reason
    assert "embedded" in auto.choose(plan_for(tmp_path, backend="embedded"), None)[1]


def test_a_machine_without_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    plan = plan_for(tmp_path, compile=True)
    with pytest.raises(ToolchainError, match="apache-tvm") as caught:
        auto.choose(plan, None)
    assert "--no-compile" in caught.value.remedy
    auto.choose(dataclasses.replace(plan, compile=False), None)


def test_the_output_cannot_be_the_model(tmp_path: Path) -> None:
    source = shutil.copytree(GEMMA / "hf", tmp_path / "out")
    with pytest.raises(UsageError, match="folder of the model itself"):
        finish(plan_for(tmp_path, source=str(source)))


def test_the_output_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="--output"):
        finish(plan_for(tmp_path))
    with pytest.raises(UsageError, match="--output"):
        finish(plan_for(tmp_path, output=tmp_path / "out" / "below"))


@pytest.mark.parametrize(
    ("device", "name"), [("webgpu", "model-webgpu.wasm"), ("iphone", "model-iphone.tar")]
)
def test_library_names(tmp_path: Path, device: str, name: str) -> None:
    assert library_name(plan_for(tmp_path, device=device)) == name


# --- stand-in programs ---------------------------------------------------------------------------

CONVERT = """
import hashlib, json, pathlib, sys
out, golden, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
manifest = json.loads((golden / "tensor-cache.json").read_text())
data = (golden / "params_shard_0.bin").read_bytes()
records = manifest["records"][0]["records"]
step, manifest["records"] = -(-len(records) // count), []
for i in range(0, len(records), step):
    part = records[i : i + step]
    start, end = part[0]["byteOffset"], part[-1]["byteOffset"] + part[-1]["nbytes"]
    name = f"params_shard_{len(manifest['records'])}.bin"
    (out / name).write_bytes(data[start:end])
    shard = {"dataPath": name, "format": "raw-shard", "nbytes": end - start}
    shard["records"] = [r | {"byteOffset": r["byteOffset"] - start} for r in part]
    shard["md5sum"] = hashlib.md5(data[start:end]).hexdigest()
    manifest["records"].append(shard)
(out / "tensor-cache.json").write_text(json.dumps(manifest))
"""
CONFIG = """
import json, pathlib, shutil, sys
out, golden, quantization = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
config = json.loads((golden / "expected" / "mlc-chat-config.json").read_text())
config |= {"quantization": quantization, "sliding_window_size": -1}
config["conv_template"]["stop_token_ids"] = [1]
(out / "mlc-chat-config.json").write_text(json.dumps(config))
for name in config["tokenizer_files"]:
    shutil.copyfile(golden / "hf" / name, out / name)
"""
TALLY = "import sys; open(sys.argv[-1], 'a').write(sys.argv[-2] + '\\n')\n"


class StandIn:
    """Small programs in place of the stages; `instead` replaces one by other code."""

    name = "stand-in"

    def __init__(self, tally: Path, *, shards: int = 1, **instead: str) -> None:
        self.tally, self.shards, self.instead = tally, shards, instead

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Everything is possible."""

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:
        expected = str(GEMMA / "expected" / plan.quantization)
        convert = (CONVERT, expected, str(self.shards))
        stages: dict[StageName, tuple[str, ...]] = {
            "convert_weight": convert,
            "gen_config": (CONFIG, str(GEMMA), plan.quantization),
        }
        return tuple(
            StageCommand(
                stage=stage,
                argv=(
                    *(sys.executable, "-P", "-c", TALLY + self.instead.get(stage, code)),
                    *(str(folders.building(stage)), *rest, stage, str(self.tally)),
                ),
            )
            for stage, (code, *rest) in stages.items()
        )

    def ran(self) -> list[str]:
        return self.tally.read_text().split() if self.tally.exists() else []


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., StandIn]:
    return lambda **kwargs: StandIn(tmp_path / "tally", **kwargs)


def test_fewer_shards_leave_no_stale_ones(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path, quantization="q0f16")
    assert ended(finish(plan, backend=stand_in(shards=5))).exit_code == 0
    assert len(list(plan.output.glob("params_shard_*.bin"))) == 5
    less = dataclasses.replace(plan, quantization="q4f16_1")
    assert ended(finish(less, backend=stand_in(shards=2))).exit_code == 0
    assert len(list(plan.output.glob("params_shard_*.bin"))) == 2


@pytest.mark.parametrize(
    ("code", "what", "why", "exit_code"),
    [
        ("sys.exit(3)", "gen_config failed with exit code 3.", "It printed nothing.", 1),
        ("print('last words'); sys.exit(1)", "gen_config failed with exit code 1.", "last words", 1),
        ("1 / 0", "gen_config failed with exit code 1.", "ZeroDivisionError", 1),
        ("pass", "gen_config ended without an error but wrote no file.", "", 1),
        (
            "import os; os.write(1, bytes(range(256)) * 999); sys.exit(5)",
            "gen_config failed with exit code 5.",
            "Its last line",
            1,
        ),
        (
            'print(\'\\x1e{"error": {"what": "No token.", "why": "w", "remedy": "r", "exit_code": 4}}\')\n'
            "sys.exit(4)",
            "No token.",
            "w",
            4,
        ),
    ],
)
def test_a_stage_that_fails(
    tmp_path: Path,
    stand_in: Callable[..., StandIn],
    code: str,
    what: str,
    why: str,
    exit_code: int,
) -> None:
    plan = plan_for(tmp_path)
    broken = stand_in(gen_config=code)
    events = finish(plan, backend=broken)
    told = failure(events)
    assert told.what == what
    assert why in told.why
    assert told.remedy
    assert ended(events).exit_code == exit_code
    assert not list((plan.output / ".mlc-wizard").glob("*.partial"))
    assert not (plan.output / "mlc-chat-config.json").exists()
    assert what in (plan.output / "mlc-wizard.log").read_text()
    mended = finish(plan, backend=stand_in())
    assert outcomes(mended) == {"convert_weight": "skipped", "gen_config": "done", "verify": "done"}
    assert broken.ran() == ["convert_weight", "gen_config", "gen_config"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_stage_that_crashes(tmp_path: Path, stand_in: Callable[..., StandIn], name: str) -> None:
    code = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=code)))
    assert f"was ended by signal {getattr(signal, name).value} ({name})" in told.what
    assert ("memory" in told.why) == (name == "SIGKILL")


def test_a_burst_of_lines_is_in_the_log_whole(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    code = "for i in range(200_000): print('line', i)\n" + CONFIG
    events = finish(plan_for(tmp_path), backend=stand_in(gen_config=code))
    assert ended(events).exit_code == 0
    lines = [line for e in events if isinstance(e, Output) and e.stage == "gen_config" for line in e.lines]
    assert lines == [f"line {i}" for i in range(200_000)]
    log = (tmp_path / "out" / "mlc-wizard.log").read_text().splitlines()
    assert sum("gen_config: line " in line for line in log) == 200_000


def test_records_that_make_no_sense_are_left_out(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    code = """
import json
for body in ({"done": "x"}, {"done": 1, "total": [], "unit": "u"}, {}, {"done": 2, "total": 4, "unit": "u"}):
    print("\\x1e" + json.dumps({"progress": body}), flush=True)
print("\\x1e" + json.dumps({"check": {"name": "forged", "passed": True}}))
"""
    events = finish(plan_for(tmp_path), backend=stand_in(convert_weight=code + CONVERT))
    progress = [e for e in events if isinstance(e, Progress) and e.stage == "convert_weight"]
    assert progress == [Progress(stage="convert_weight", done=2, total=4, unit="u")]
    assert "forged" not in [check.name for check in ended(events).checks]


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready'); time.sleep(600)"
)
PATIENT = "import time; print('ready'); time.sleep(600)"


def is_ready(event: Event) -> bool:
    return isinstance(event, Output) and "ready" in event.lines


@pytest.mark.parametrize("code", [PATIENT, STUBBORN], ids=["patient", "stubborn"])
def test_cancel_in_a_stage(tmp_path: Path, stand_in: Callable[..., StandIn], code: str) -> None:
    plan, cancel = plan_for(tmp_path), threading.Event()
    half = "open(sys.argv[1] + '/mlc-chat-config.json', 'w').write('half')\n"
    events = []
    for event in runner.run(plan, cancel, backend=stand_in(gen_config=half + code)):
        events.append(event)
        if is_ready(event):
            cancel.set()
    assert failure(events).outcome == "cancelled"
    assert (ended(events).outcome, ended(events).exit_code) == ("cancelled", 130)
    assert not psutil.Process().children(recursive=True)
    assert not (plan.output / "mlc-chat-config.json").exists()
    assert not list((plan.output / ".mlc-wizard").glob("*.partial"))
    assert outcomes(finish(plan, backend=stand_in()))["convert_weight"] == "skipped"


def test_cancel_before_anything(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    cancel = threading.Event()
    cancel.set()
    events = list(runner.run(plan_for(tmp_path), cancel, backend=stand_in()))
    assert ended(events).exit_code == 130
    assert stand_in().ran() == []


def test_closing_the_generator_leaves_nothing_and_frees_the_folder(
    tmp_path: Path, stand_in: Callable[..., StandIn]
) -> None:
    plan = plan_for(tmp_path)
    with contextlib.closing(
        runner.run(plan, threading.Event(), backend=stand_in(convert_weight=PATIENT))
    ) as events:
        next(event for event in events if is_ready(event))
        assert psutil.Process().children(recursive=True)
    assert not psutil.Process().children(recursive=True)
    assert ended(finish(plan, backend=stand_in())).exit_code == 0


def test_two_runs_on_one_folder(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path)
    with contextlib.closing(
        runner.run(plan, threading.Event(), backend=stand_in(gen_config=PATIENT))
    ) as first:
        next(event for event in first if is_ready(event))
        with pytest.raises(UsageError, match="Another run is working in"):
            finish(plan, backend=stand_in())
        if hasattr(os, "fork"):
            assert forked(lambda: finish(plan, backend=stand_in())) != 0
        finish(dataclasses.replace(plan, output=tmp_path / "other"), backend=stand_in())
    assert ended(finish(plan, backend=stand_in())).exit_code == 0


# --- no space left -------------------------------------------------------------------------------

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")


@needs_full_device
def test_no_space_for_a_stage(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    """A real ENOSPC from the kernel."""
    code = "open('/dev/full', 'w').write('x' * 100_000)"
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=code)))
    assert told.what.startswith("No space left on the disk that holds ")
    assert "--output" in told.remedy


@needs_full_device
def test_no_space_for_the_log(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mlc-wizard.log").symlink_to("/dev/full")
    with pytest.raises(StageError, match="No space left on the disk"):
        finish(plan_for(tmp_path), backend=stand_in())


@needs_full_device
def test_no_space_for_the_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("before")
    (tmp_path / "state.json.tmp").symlink_to("/dev/full")
    with pytest.raises(StageError, match="No space left on the disk"):
        disk.write_atomically(path, "x" * 100_000)
    assert path.read_text() == "before"


# --- kill -9 -------------------------------------------------------------------------------------


def forked(work: Callable[[], object]) -> int:
    """Run `work` in a forked copy of this process; 0, 1 for an exception, or -9."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Countdown:
    """Kills this process when a file would be renamed or removed for the `left`th time."""

    def __init__(self, left: int) -> None:
        self.left = left

    def around(self, operation: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return wrapped


def run_until_killed(plan: ExportPlan, backend: StandIn, steps: int) -> int:
    def work() -> None:
        countdown = Countdown(steps)
        for owner, name in ((Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            setattr(owner, name, countdown.around(getattr(owner, name)))
        finish(plan, backend=backend)

    return forked(work)


def until_configured(plan: ExportPlan, backend: StandIn) -> list[Event]:
    """A run without its last stage, which takes longest and changes nothing."""
    events = []
    with contextlib.closing(runner.run(plan, threading.Event(), backend=backend)) as run:
        for event in run:
            events.append(event)
            if isinstance(event, StageEnded) and event.stage == "gen_config":
                break
    return events


def state_of(output: Path) -> dict[str, dict[str, object]]:
    path = output / ".mlc-wizard" / "state.json"
    return dict(json.loads(path.read_text())["stages"]) if path.exists() else {}


@needs_fork
@pytest.mark.parametrize("before", [None, "q0f16"])
def test_killed_at_every_step_the_next_run_finishes_the_job(
    tmp_path: Path, stand_in: Callable[..., StandIn], before: str | None
) -> None:
    """First into an empty folder, then over an export with another quantization and more shards."""
    reference = plan_for(tmp_path, output=tmp_path / "reference")
    finish(reference, backend=stand_in(shards=2))
    prints = {name: state["fingerprint"] for name, state in state_of(reference.output).items()}
    allowed = {(n, d) for n, d in visible(reference.output).items()}
    old = tmp_path / "old"
    if before:
        finish(plan_for(tmp_path, quantization=before, output=old), backend=stand_in(shards=4))
        allowed |= {(n, d) for n, d in visible(old).items()}
    for steps in range(1000):
        output = tmp_path / f"out{steps}"
        if before:
            shutil.copytree(old, output)
        plan = plan_for(tmp_path, output=output)
        code = run_until_killed(plan, stand_in(shards=2), steps)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert set(visible(output).items()) <= allowed
        finished = {n for n, s in state_of(output).items() if s["fingerprint"] == prints[n]}
        manifest = output / "tensor-cache.json"
        if manifest.exists():
            named = [s["dataPath"] for s in json.loads(manifest.read_text())["records"]]
            assert all((output / name).exists() for name in named)
        found = outcomes(until_configured(plan, stand_in(shards=2)))
        assert all(found[name] == "skipped" for name in finished & {"convert_weight", "gen_config"})
        assert visible(output) == visible(reference.output)
        shutil.rmtree(output)
    assert steps > 10


@needs_fork
@pytest.mark.parametrize("stage", ["convert_weight", "gen_config"])
def test_killed_in_a_stage(tmp_path: Path, stand_in: Callable[..., StandIn], stage: str) -> None:
    plan = plan_for(tmp_path)
    pids = tmp_path / "pids"

    def work() -> None:
        for event in runner.run(plan, threading.Event(), backend=stand_in(**{stage: STUBBORN})):
            if is_ready(event):
                children = psutil.Process().children(recursive=True)
                pids.write_text(" ".join(str(child.pid) for child in children))
                os.kill(os.getpid(), signal.SIGKILL)

    assert forked(work) == -signal.SIGKILL
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    limit = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in left):
        assert time.monotonic() < limit
        time.sleep(0.05)
    found = outcomes(finish(plan, backend=stand_in()))
    assert found[stage] == "done"
    assert found["convert_weight"] == ("done" if stage == "convert_weight" else "skipped")


def test_recovery_notices_a_commit_that_lost_a_file(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path)
    finish(plan, backend=stand_in())
    path = plan.output / ".mlc-wizard" / "state.json"
    state = json.loads(path.read_text())
    state["stages"]["gen_config"]["committing"] = True
    path.write_text(json.dumps(state))
    (plan.output / "tokenizer.json").unlink()
    assert outcomes(finish(plan, backend=stand_in())) == {
        "convert_weight": "skipped",
        "gen_config": "done",
        "verify": "done",
    }


def test_a_library_of_an_earlier_run_goes_when_the_plan_has_none(
    tmp_path: Path, stand_in: Callable[..., StandIn]
) -> None:
    plan = plan_for(tmp_path)
    finish(plan, backend=stand_in())
    with Workspace.locked(plan.output, "model-webgpu.wasm") as workspace:
        (workspace.begin("compile") / "model-webgpu.wasm").write_bytes(b"\0asm")
        workspace.commit("compile", "earlier", 1.0)
    assert (plan.output / "model-webgpu.wasm").exists()
    assert ended(finish(plan, backend=stand_in())).exit_code == 0
    assert not (plan.output / "model-webgpu.wasm").exists()


def test_children_do_not_see_the_lock(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    """A process that outlived the run must not keep the folder locked."""
    plan = plan_for(tmp_path)
    code = "import os; print('fds', sorted(os.listdir('/proc/self/fd')))\n"
    if not Path("/proc/self/fd").exists():
        pytest.skip("only Linux lists descriptors")
    events = finish(plan, backend=stand_in(gen_config=code + CONFIG))
    (line,) = [li for e in events if isinstance(e, Output) for li in e.lines if li.startswith("fds")]
    assert line == "fds ['0', '1', '2', '3']"  # 3 is the listing itself


def test_cancel_while_files_are_hashed_moves_none(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    plan = plan_for(tmp_path)
    finish(plan, backend=stand_in(shards=2))
    before = visible(plan.output)
    other = dataclasses.replace(plan, quantization="q0f16")
    calls = []

    def between() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise StageError("stop")

    with Workspace.locked(plan.output, "model-webgpu.wasm") as workspace:
        folder = workspace.begin("convert_weight")
        for name in ("params_shard_0.bin", "tensor-cache.json"):
            (folder / name).write_text("new")
        with pytest.raises(StageError, match="stop"):
            workspace.commit("convert_weight", "new", 1.0, between=between)
        assert visible(plan.output) == before
    assert ended(finish(other, backend=stand_in())).exit_code == 0
