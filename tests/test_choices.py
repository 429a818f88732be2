"""What can be chosen: sizes that are those of the files, and reasons that are those of a run."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native_libraries import program
from published_models import GEMMA, LLAMA_1B

from engine.catalog import QUANTIZATIONS, TARGETS
from engine.choices import Refuse, nominal_bits, quantization_choices, refusal, target_choices, with_device
from engine.errors import ToolchainError, UsageError, WizardError
from engine.model import facts as model_facts
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, ExportPlan


def plan(quantization: str = "q0f16", **changes: Any) -> ExportPlan:
    return ExportPlan(source="org/model", quantization=quantization, **changes)


def refusing(*pairs: tuple[str, str]) -> Refuse:
    """A backend that has all but some pairs of quantization and device, "weights" for no device at all."""

    def refuse(plan: ExportPlan, facts: ModelFacts | None) -> WizardError | None:
        pair = (plan.quantization, plan.device if plan.compile else "weights")
        return UsageError(f"no {pair[0]} for {pair[1]}") if pair in pairs else None

    return refuse


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        *(("q0f16", 16), ("q0f32", 32), ("q4f16_1", 4.5), ("q4f32_1", 5.0)),
        *(("q3f16_1", 3.6), ("q4bf16_1", 4.5), ("q4f16_autoawq", 4 + 20 / 128)),
    ],
)
def test_bits_of_a_large_matrix(name: str, bits: float) -> None:
    assert nominal_bits(QUANTIZATIONS[name]) == bits
    unknown = {c.quantization.name: c for c in quantization_choices(plan(), None)}
    assert unknown[name].bits_per_weight == bits
    assert unknown[name].sizes is None


def test_every_quantization_is_offered_with_its_exact_size(golden: Path) -> None:
    facts = model_facts.read(golden / "hf")
    choices = quantization_choices(plan(), facts)
    assert [c.quantization.name for c in choices] == list(QUANTIZATIONS)
    for choice in choices:
        assert choice.sizes is not None
        expected = golden / "expected" / choice.quantization.name / "tensor-cache.json"
        if not expected.exists():  # one that no golden file states
            continue
        assert choice.refused is None
        records = [r for shard in json.loads(expected.read_text())["records"] for r in shard["records"]]
        assert choice.sizes.disk_bytes == sum(record["nbytes"] for record in records)


@pytest.mark.parametrize(
    ("absent", "device", "compile_", "refused"),
    [
        ((), "webgpu", True, []),
        ([("q4f16_1", "webgpu")], "webgpu", True, ["q4f16_1"]),
        ([("q4f16_1", "webgpu")], "cpu", True, []),
        ([("q4f16_1", "webgpu")], "webgpu", False, []),
        ([("q0f16", "weights")], "webgpu", True, ["q0f16"]),
        ([("q0f16", "weights")], "webgpu", False, ["q0f16"]),
        # The target has none at all: that is told where targets are chosen.
        ([(name, "cuda") for name in QUANTIZATIONS], "cuda", True, []),
        ([(name, "cuda") for name in QUANTIZATIONS] + [("q0f32", "weights")], "cuda", True, ["q0f32"]),
    ],
)
def test_what_is_refused(
    absent: list[tuple[str, str]], device: str, compile_: bool, refused: list[str]
) -> None:
    choices = quantization_choices(plan(device=device, compile=compile_), GEMMA, refusing(*absent))
    assert [c.quantization.name for c in choices if c.refused] == refused


FEW_BITS = [name for name, q in QUANTIZATIONS.items() if q.bits is not None and not q.from_awq]


@pytest.mark.parametrize(("facts", "warned"), [(GEMMA, FEW_BITS), (LLAMA_1B, []), (None, [])])
def test_four_bits_below_a_billion_are_marked(facts: ModelFacts | None, warned: list[str]) -> None:
    choices = quantization_choices(plan(), facts)
    assert [c.quantization.name for c in choices if c.warnings] == warned


def test_a_warning_of_the_context_marks_no_quantization() -> None:
    choices = quantization_choices(plan(context_window_size=99_999), GEMMA)
    assert {advice.code for choice in choices for advice in choice.warnings} == {"q4-small-model"}


def test_an_unknown_model_has_one_reason_for_all() -> None:
    unknown = replace(GEMMA, spec=None, parameters=(), unsupported=UsageError("not a decoder"))
    assert {c.refused and c.refused.what for c in quantization_choices(plan(), unknown)} == {"not a decoder"}
    assert {c.lacks and c.lacks.what for c in target_choices(plan(), unknown)} == {"not a decoder"}


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's compiler, as far as looking for it goes."""
    program(tmp_path, "nvcc", "")
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_a_compiler_for_cuda_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str, package: str | None = None) -> object:
        return None if name.startswith("cuda") else original(name, package)

    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    choices = {c.target.name: c for c in target_choices(plan(), GEMMA)}
    assert [name for name, choice in choices.items() if not choice.compiles] == ["cuda", "vulkan"]
    lack = choices["cuda"].lacks
    assert isinstance(lack, ToolchainError)
    assert "nvidia-cuda-nvrtc==13.0" in lack.remedy


@pytest.mark.usefixtures("nvcc")
def test_every_target_with_its_library_and_what_it_lacks() -> None:
    choices = {c.target.name: c for c in target_choices(plan(compile=False), GEMMA)}
    assert list(choices) == list(TARGETS)
    assert [name for name, choice in choices.items() if not choice.compiles] == ["vulkan"]
    assert choices["webgpu"].library == "model-webgpu.wasm"
    assert choices["iphone"].library == "model-iphone.tar"
    assert "does not compile for vulkan" in str(choices["vulkan"].lacks)


def test_a_machine_without_the_compiler_makes_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, package: str | None = None) -> object:
        return None if name == "tvm" else original(name, package)

    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    choices = {c.target.name: c for c in target_choices(plan(), GEMMA)}
    assert isinstance(choices["webgpu"].lacks, ToolchainError)
    assert "apache-tvm" in str(choices["webgpu"].lacks)
    assert refusal(plan(compile=False), GEMMA) is None
    assert not with_device(plan(), "webgpu", library=True, facts=GEMMA).compile
    # Only what no target is the reason of: Gemma's weights are no AWQ checkpoint.
    assert [c.quantization.name for c in quantization_choices(plan(), GEMMA) if c.refused] == [
        "q4f16_autoawq"
    ]


@pytest.mark.parametrize(
    ("device", "library", "compiles"),
    [
        ("webgpu", True, True),
        ("webgpu", False, False),
        ("cpu", True, True),
        ("cuda", True, True),
        ("vulkan", True, False),
        ("iphone", False, False),
    ],
)
@pytest.mark.usefixtures("nvcc")
def test_a_device_and_what_is_made_for_it(device: str, library: bool, compiles: bool) -> None:
    before = ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1", prefill_chunk_size=32)
    chosen = with_device(before, device, library=library, facts=None)
    assert chosen == replace(before, device=device, compile=compiles)
    assert refusal(chosen, None) is None
