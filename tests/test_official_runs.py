"""The backend mlc_llm through the real runner: a stand-in that works with our own stages, or goes wrong."""

import contextlib
import dataclasses
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import exports
import pytest
from official_support import distribution, mlc_llm, working
from runner_support import GEMMA, GOLDEN, failure, finish, is_ready, outcomes, plan_for, visible

from engine import headless, runner
from engine.artifacts import verify
from engine.backends.official import inspection, stage
from engine.events import Event, Output, Progress, RunStarted, StageEnded
from engine.plan import ExportPlan

DONE = {"convert_weight": "done", "gen_config": "done", "compile": "done", "verify": "done"}
WEIGHTS = {"ndarray-cache.json", "params_shard_0.bin", "tensor-cache.json"}
CONFIG = {"mlc-chat-config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder of the test's own."""
    return Path(shutil.copytree(GEMMA / "hf", tmp_path / "model"))


@pytest.fixture
def plan(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> ExportPlan:
    """An export for Vulkan, which only mlc_llm makes, in an environment of the test's own."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX", "MLC_LLM_SOURCE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(tmp_path / "own"))
    mlc_llm(tmp_path / "own")
    working(monkeypatch)
    return plan_for(tmp_path, source=str(model), device="vulkan", compile=True, backend="mlc_llm")


def lines(events: list[Event], stage_name: str) -> list[str]:
    return [line for e in events if isinstance(e, Output) and e.stage == stage_name for line in e.lines]


def receipt(plan: ExportPlan) -> dict[str, Any]:
    return dict(json.loads((plan.output / "export-receipt.json").read_text()))


def test_a_run_from_its_first_stage_to_its_receipt(plan, model):
    before = visible(model)
    events = finish(plan)
    assert outcomes(events) == DONE
    assert set(visible(plan.output)) == WEIGHTS | CONFIG | {"model-vulkan.so"}
    assert visible(model) == before, "nothing is written beside the model"
    (start,) = (e for e in events if isinstance(e, RunStarted))
    assert "mlc_llm 0.20.dev321 with tvm 0.24.dev99" in start.backend


def test_its_weights_are_those_of_the_embedded_backend(plan, tmp_path):
    finish(dataclasses.replace(plan, compile=False))
    ours = dataclasses.replace(plan, compile=False, backend="embedded", output=tmp_path / "ours")
    finish(ours)
    theirs, own = visible(plan.output), visible(ours.output)
    assert {name: theirs[name] for name in WEIGHTS} == {name: own[name] for name in WEIGHTS}


def test_bars_become_progress_and_nothing_of_a_terminal_is_left_in_the_lines(plan):
    events = finish(plan)
    told = [e for e in events if isinstance(e, Progress) and e.unit == "parameters"]
    assert told[-1].done == told[-1].total == 8
    shown = lines(events, "convert_weight")
    logged = [line.partition("py:170: ")[2] for line in shown]
    assert '[Quantized] Parameter: "model.layers.0.q_weight", shape: (64, 8)' in logged
    assert not [line for line in shown if "\x1b" in line or "\r" in line or "|" in line]


def test_what_is_wrong_for_webllm_is_put_right_and_told(plan):
    events = finish(plan)
    config = json.loads((plan.output / "mlc-chat-config.json").read_text())
    assert (config["context_window_size"], config["sliding_window_size"]) == (256, -1)
    assert config["conv_template"]["name"] == "custom"
    assert config["conv_template"]["roles"]["user"] == "<start_of_turn>user"
    shown = lines(events, "gen_config")
    repaired = [line.removeprefix("repaired: ") for line in shown if line.startswith("repaired: ")]
    assert repaired == [
        "sliding_window_size: -1 instead of 16, as WebLLM takes one of the two windows",
        "conv_template: custom instead of LM, from the model's own chat template",
    ]
    told = receipt(plan)
    assert told["backend"] == "mlc_llm"
    assert told["repairs"] == [
        "ndarray-cache.json: a copy of tensor-cache.json, for runtimes from before September 2025",
        "tensor-cache-b16.json: taken away, no runtime opens it",
        *repaired,
    ]
    assert told["versions_of_backend"]["tvm"] == "0.24.dev99"
    assert "repairs" not in told["conversation"]


def test_a_template_that_is_named_stays_mlc_llms(plan):
    finish(dataclasses.replace(plan, conv_template="gemma3_instruction"))
    config = json.loads((plan.output / "mlc-chat-config.json").read_text())
    assert config["conv_template"]["name"] == "gemma3_instruction"


def test_the_older_name_of_the_manifest(plan, monkeypatch):
    working(monkeypatch, "old-names")
    events = finish(plan)
    assert outcomes(events) == DONE
    assert set(visible(plan.output)) == WEIGHTS | CONFIG | {"model-vulkan.so"}
    copied = "repaired: tensor-cache.json: a copy of ndarray-cache.json, for runtimes from September 2025 on"
    assert copied in lines(events, "convert_weight")


def test_a_second_run_does_nothing_until_mlc_llm_is_another(plan, tmp_path):
    finish(plan)
    again = finish(plan)
    skipped = dict.fromkeys(("convert_weight", "gen_config", "compile"), "skipped")
    assert outcomes(again) == {**skipped, "verify": "done"}
    shutil.rmtree(tmp_path / "own")
    mlc_llm(tmp_path / "own", version="0.20.dev400")
    assert outcomes(finish(plan)) == DONE


@pytest.mark.parametrize(
    ("does", "stage_name", "what"),
    [
        (
            "convert_weight:nothing",
            "convert_weight",
            "ended without an error but wrote no tensor-cache.json",
        ),
        (
            "gen_config:nothing",
            "gen_config",
            "ended without an error but wrote no mlc-chat-config.json",
        ),
        ("compile:nothing", "compile", "ended without an error but wrote no model-vulkan.so"),
        ("compile:empty", "compile", "ended without an error but wrote no model-vulkan.so"),
        ("late", "convert_weight", "Parameter not found in source"),
        ("crash", "convert_weight", "convert_weight was ended by signal 6 (SIGABRT)"),
    ],
)
def test_it_goes_wrong_and_what_was_finished_is_kept(does, stage_name, what, plan, monkeypatch):
    working(monkeypatch, does)
    events = finish(plan)
    told = failure(events)
    assert told.stage == stage_name
    assert what in f"{told.what}\n{told.why}"
    before = [name for name, outcome in outcomes(events).items() if outcome == "done"]
    there = set(visible(plan.output))
    assert there == (WEIGHTS if before == ["convert_weight"] else WEIGHTS | CONFIG if before else set())
    working(monkeypatch)
    again = finish(plan)
    assert outcomes(again) == DONE | dict.fromkeys(before, "skipped")


def test_a_crash_when_all_is_written_changes_nothing(plan, monkeypatch):
    working(monkeypatch, "unload")
    events = finish(plan)
    assert outcomes(events) == DONE
    for stage_name in ("convert_weight", "gen_config", "compile"):
        assert "note: it crashed with code 134 when all was written, which changes nothing" in lines(
            events, stage_name
        )


def test_cancelling_ends_mlc_llm_too(plan, monkeypatch):
    working(monkeypatch, "convert_weight:hang")
    cancel = threading.Event()
    events = []
    with contextlib.closing(runner.run(plan, cancel)) as running:
        for event in running:
            events.append(event)
            if is_ready(event):
                cancel.set()
    assert failure(events).outcome == "cancelled"
    assert not visible(plan.output)


def test_the_oldest_command_line_makes_the_same_export(plan, tmp_path):
    finish(plan)
    mlc_llm(tmp_path / "chat", module="mlc_chat")
    old = dataclasses.replace(plan, interpreter=str(tmp_path / "chat"), output=tmp_path / "old")
    events = finish(old)
    assert outcomes(events) == DONE
    assert visible(old.output) == visible(plan.output)


def test_a_library_that_this_tvm_cannot_load_is_told_not_to_have_been_run(plan):
    for_cpu = dataclasses.replace(plan, device="cpu")
    events = finish(for_cpu)
    assert outcomes(events) == DONE
    (line,) = (line for line in lines(events, "verify") if line.startswith("generation"))
    assert line.startswith("generation: not run here: this apache-tvm does not run model-cpu")
    assert "generation" not in {
        check["name"] for check in receipt(dataclasses.replace(plan, device="cpu"))["checks"]
    }


def test_an_environment_that_was_mixed_meanwhile_is_refused_before_anything_runs(plan, tmp_path):
    finish(plan)
    python = tmp_path / "own" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    distribution(python, "apache-tvm", "0.27.0.post1")
    with pytest.raises(Exception, match=r"is mixed: .*apache-tvm 0\.27\.0\.post1"):
        finish(plan)
    assert (plan.output / "export-receipt.json").is_file(), "the export that was there stays as it was"


def test_the_seconds_of_looking_into_an_interpreter_are_told(plan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inspection, "_known", {})  # as in a new process
    headless.dry_run(plan)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"Looking for mlc_llm in {tmp_path / 'own'}")
    headless.dry_run(plan)
    assert "Looking for" not in capsys.readouterr().err, "it is known now"


def test_advice_speaks_of_what_it_computes_otherwise(plan, model):
    from engine.run.job import prepare

    codes = {advice.code: advice for advice in prepare(plan).advice()}
    assert "rope theta" in codes["mlc-llm-gemma3"].message
    assert codes["mlc-llm-gemma3"].better is None, "the embedded backend does not compile for Vulkan"
    cpu = dataclasses.replace(plan, device="cpu")
    taken = next(a for a in prepare(cpu).advice() if a.code == "mlc-llm-gemma3").taken(cpu)
    assert prepare(taken).backend.name == "embedded"
    assert not {a.code for a in prepare(taken).advice()} & {"mlc-llm-gemma3", "mlc-llm-rope"}
    assert "mlc-llm-rope" not in codes
    shutil.copyfile(GEMMA / "config.transformers5.json", model / "config.json")
    assert "mlc-llm-rope" in {advice.code for advice in prepare(plan).advice()}


def test_a_family_that_only_mlc_llm_knows(plan, model):
    shutil.rmtree(model)
    shutil.copytree(GOLDEN / "llama" / "hf", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "rwkv6"}))
    auto = dataclasses.replace(plan, backend="auto", device="cpu")
    events = finish(auto)
    assert outcomes(events) == DONE
    (start,) = (e for e in events if isinstance(e, RunStarted))
    assert start.backend.startswith("mlc_llm backend: ")
    assert "rwkv6" in start.backend
    told = lines(events, "verify")
    unknown = "nothing is known of rwkv6 in q4f16_1"
    assert f"parameters: not compared with the model: {unknown}" in told
    assert f"generation: not run here: {unknown}" in told
    assert receipt(auto)["source"]["model_type"] == "rwkv6"


def test_a_library_of_mlc_llm_that_this_tvm_runs_is_run(tmp_path):
    """Real mlc_llm libraries do run here; ours stands for one, as the receipt says that it is theirs."""
    made = Path(shutil.copytree(exports.export("llama", "q4f32_1", "cpu"), tmp_path / "made"))
    names = {check.name: check for check in verify(made, made_by="mlc_llm")}
    assert names["generation"].passed, names["generation"].found
    assert "native contract" not in names, "that is a matter of the embedded compiler"


def test_an_interpreter_that_is_gone_when_the_stage_begins(tmp_path, capsys):
    gone = str(tmp_path / "python")
    code = stage.main(["compile", "--into", str(tmp_path), "--library", "x.so", "--", gone, "-m", "mlc_llm"])
    assert code == 2
    assert f"{gone} cannot be started: No such file" in capsys.readouterr().err


def test_the_reason_of_a_failure_is_a_known_one(plan, monkeypatch):
    """What the literature knows as E11 is told by its name, though mlc_llm has written all shards by then."""
    working(monkeypatch, "late")
    (told,) = (e for e in finish(plan) if isinstance(e, StageEnded) and e.outcome == "failed")
    assert told.what.startswith("convert_weight failed: ")
    assert "Parameter not found in source: model.layers.0.self_attn.qkv_proj.q_weight" in told.why
