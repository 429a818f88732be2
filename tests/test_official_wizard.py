"""What the wizard shows where mlc_llm can do what the embedded compiler cannot."""

import dataclasses
import os

import pytest
from official_support import mlc_llm
from published_models import GEMMA, SMOL
from runner_support import plan_for

from engine.advice import advise
from engine.choices import quantization_choices, taken, target_choices
from engine.errors import UsageError
from engine.plan import ExportPlan
from tui import describe
from tui.advice_table import for_step
from tui.draft import Draft
from tui.screens.review import review
from tui.screens.target import LIBRARY, device_rows, part_rows

UNKNOWN = dataclasses.replace(
    SMOL, model_type="rwkv6", spec=None, parameters=(), unsupported=UsageError("Unknown model type: rwkv6.")
)


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX", "MLC_LLM_SOURCE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(tmp_path / "own"))
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.defpath)


@pytest.fixture
def found(tmp_path):
    """An mlc_llm, in the environment that mlc-wizard makes for it."""
    return mlc_llm(tmp_path / "own")


def plan(**changes: object) -> ExportPlan:
    return dataclasses.replace(ExportPlan(source="/m", quantization="q4f16_1"), **changes)  # type: ignore[arg-type]


def test_targets_that_nobody_compiles_for_name_what_would():
    choices = {choice.target.name: choice for choice in target_choices(plan(), GEMMA)}
    assert not choices["vulkan"].compiles
    refused = next(row for row in part_rows(choices["vulkan"]) if row.name == LIBRARY).refused
    assert "mlc_llm, the official compiler, may cover it: No mlc_llm was found here." in refused


@pytest.mark.usefixtures("found")
def test_targets_of_mlc_llm_say_so():
    rows = {row.name: row.figures[0] for row in device_rows(target_choices(plan(), GEMMA))}
    assert rows["vulkan"].endswith("mlc_llm")
    assert rows["webgpu"].endswith("compiles")


@pytest.mark.usefixtures("found")
def test_quantizations_follow_the_backend():
    """Once it is known what this mlc_llm knows; bfloat16 in 4 bits it does not."""
    wanted = plan(device="vulkan", backend="mlc_llm")
    review(dataclasses.replace(wanted, source="builtin:demo"))  # which looks into it
    refused = {c.quantization.name: c.refused for c in quantization_choices(wanted, GEMMA)}
    assert refused["q4f16_1"] is None
    assert refused["q4bf16_1"]
    assert "mlc_llm 0.20.dev321 does not know the quantization 'q4bf16_1'" in refused["q4bf16_1"].what


def test_a_model_that_nobody_knows_stops_at_its_step():
    draft = Draft(plan())
    draft.facts = UNKNOWN
    error = draft.unsupported()
    assert error
    assert error.what == "Unknown model type: rwkv6."
    assert "mlc_llm, the official compiler, may cover it" in error.why
    assert "mlc-wizard --check" in error.remedy
    draft.facts = GEMMA
    assert draft.unsupported() is None


@pytest.mark.usefixtures("found")
def test_a_model_that_mlc_llm_may_know_goes_on():
    draft = Draft(plan())
    draft.facts = UNKNOWN
    assert draft.unsupported() is None
    assert not draft.problems()


@pytest.mark.usefixtures("found")
def test_the_review_names_the_backend_and_why(tmp_path):
    reviewed = review(plan_for(tmp_path, device="vulkan", compile=True))
    assert reviewed.error is None
    assert reviewed.reason.startswith("mlc_llm backend: ")
    assert "vulkan" in reviewed.reason
    assert "mlc_llm 0.20.dev321 with tvm 0.24.dev99" in reviewed.reason
    assert any(" -m mlc_llm compile " in line for line in reviewed.commands)


def test_the_review_names_what_is_broken(tmp_path):
    mlc_llm(tmp_path / "own", on_import="raise RuntimeError('no libtvm')")
    reviewed = review(plan_for(tmp_path, backend="mlc_llm"))
    assert reviewed.error
    assert "fails: RuntimeError: no libtvm" in reviewed.error.what


@pytest.mark.usefixtures("found")
def test_advice_about_mlc_llm_comes_where_it_would_be_taken():
    for_vulkan = plan(device="vulkan")
    assert taken(for_vulkan, GEMMA).backend == "mlc_llm"
    assert taken(plan(), GEMMA).backend == "embedded"
    told = for_step("target", advise(taken(for_vulkan, GEMMA), GEMMA))
    assert [advice.code for advice in told] == ["mlc-llm-gemma3"]
    assert not for_step("target", advise(taken(plan(), GEMMA), GEMMA))


def test_the_interpreter_is_among_the_decisions():
    rows = dict(describe.decisions(plan(backend="mlc_llm", interpreter="/opt/mlc/bin/python")))
    assert (rows["backend"], rows["interpreter"]) == ("mlc_llm", "/opt/mlc/bin/python")
