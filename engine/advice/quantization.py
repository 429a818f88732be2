"""Rules about how weights are stored, and what that asks of a device."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from engine.advice.case import SMALL_MODEL, Advice, Case, is_official
from engine.catalog import QUANTIZATIONS, sibling
from engine.estimate import estimate
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, ExportPlan
from engine.units import megabytes


def _better_quantization(case: Case) -> str:
    """One answer for every rule about quantization, so that their advice agrees.

    Not quantized for a small model; float32 where float16 overflows.
    """
    quantization = QUANTIZATIONS[case.plan.quantization]
    changes: dict[str, Any] = {}
    if case.sizes.parameter_count < SMALL_MODEL:
        changes["bits"] = None
    if _overflows_f16(case.plan, case.facts):
        changes["model_dtype"] = "float32"
    better = sibling(quantization, **changes) or sibling(quantization, **{**changes, "bits": 4})
    return (better or QUANTIZATIONS["q4f32_1"]).name


def _passes_f16(facts: ModelFacts) -> bool:
    return facts.model_type.startswith("gemma3")


def _overflows_f16(plan: ExportPlan, facts: ModelFacts) -> bool:
    """mlc_llm computes in the model dtype; the embedded compiler's activations are float32."""
    return is_official(plan) and _passes_f16(facts)


def small_model(case: Case) -> Iterator[Advice]:
    """4 or 3 bit weights below 1 B parameters; an AWQ checkpoint cannot be stored otherwise."""
    sizes, mode = case.sizes, case.plan.quantization
    quantization = QUANTIZATIONS[mode]
    if quantization.bits is None or quantization.from_awq or sizes.parameter_count >= SMALL_MODEL:
        return
    if case.plan.source == BUILTIN_DEMO:
        return  # trained to be stored in 4 bits
    better = _better_quantization(case)
    larger = estimate(case.facts, replace(case.plan, quantization=better))
    tied = case.facts.decoder().tie_word_embeddings and quantization.quantize_embedding
    head = " Its embedding is also its output head, so the loss falls on every token, stop tokens included."
    yield Advice(
        code="q4-small-model",
        severity="warning",
        message=f"{mode} stores {sizes.parameter_count / 1e6:,.1f} M parameters in {quantization.bits} bits. "
        f"Below 1 B, models lose too much by that.{head if tied else ''} {better} takes "
        f"{megabytes(larger.disk_bytes)} to download instead of {megabytes(sizes.disk_bytes)}.",
        better={"quantization": better},
    )


def tied_embedding(case: Case) -> Iterator[Advice]:
    """Quantized output head of a model that is not small."""
    quantization = QUANTIZATIONS[case.plan.quantization]
    tied = case.facts.decoder().tie_word_embeddings
    if quantization.bits is None or not quantization.quantize_embedding or not tied:
        return
    if case.sizes.parameter_count >= SMALL_MODEL:
        yield Advice(
            code="q4-tied-embedding",
            severity="note",
            message=f"This model's embedding is also its output head, and {quantization.name} stores both in "
            f"{quantization.bits} bits. If answers do not stop where they should, quantize less.",
        )


def f16_range(case: Case) -> Iterator[Advice]:
    """Gemma 3 in float16."""
    mode = case.plan.quantization
    if not QUANTIZATIONS[mode].needs_f16 or not _passes_f16(case.facts):
        return
    known = "Gemma 3 was trained in bfloat16, and its activations can pass 65504, the largest float16: "
    if not is_official(case.plan):
        yield Advice(
            code="f16-range",
            severity="note",
            message=known + f"the library computes them in float32, so {mode} is safe with it, but the same "
            "weights in a library of mlc_llm's may answer with nothing or nonsense.",
        )
        return
    better = _better_quantization(case)
    yield Advice(
        code="f16-range",
        severity="warning",
        message=known + f"{mode} may answer with nothing or nonsense. {better} computes in float32.",
        better={"quantization": better},
    )


def shader_f16(plan: ExportPlan, facts: ModelFacts | None) -> Iterator[Advice]:
    """What float16 asks of a browser."""
    quantization = QUANTIZATIONS[plan.quantization]
    if plan.device != "webgpu" or not quantization.needs_f16:
        return
    other = sibling(quantization, model_dtype="float32")
    offered = other is not None and facts is not None and not _overflows_f16(plan, facts)
    yield Advice(
        code="shader-f16",
        severity="note",
        message=f"{quantization.name} needs the WebGPU feature shader-f16: recent GPUs have it, but NVIDIA's "
        "before the GTX 16 and RTX 20 series, many older phones and software renderers do not."
        + (f" {other.name} runs on all of them." if other else ""),
        better={"quantization": other.name} if offered and other else None,
    )
