"""What could be chosen better: rules over a plan, the model's facts and this machine.

Advice never blocks. Each rule speaks once, gives its numbers, and where there is a better choice
names it as changes of the plan; a plan with the change taken no longer draws that advice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.catalog import QUANTIZATIONS, sibling
from engine.estimate import (
    MIB,
    PORTABLE_BINDING_BYTES,
    PORTABLE_BUFFER_BYTES,
    WEBLLM_BUFFER_BYTES,
    Estimate,
    estimate,
)
from engine.machine import Machine
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, MOBILE, ExportPlan, with_defaults
from engine.units import mebibytes, megabytes

Severity = Literal["note", "warning"]

SMALL_MODEL = 1_000_000_000
"""Parameters below which 4 bit weights lose too much."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One piece of advice. `better` maps fields of ExportPlan to values; None where nothing is better."""

    code: str
    severity: Severity
    message: str
    better: Mapping[str, Any] | None = None

    def taken(self, plan: ExportPlan) -> ExportPlan:
        """`plan` with the better choice made."""
        return replace(plan, **(self.better or {}))


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What the rules about a model see; `plan` has its sizes filled in."""

    plan: ExportPlan
    facts: ModelFacts
    sizes: Estimate
    machine: Machine | None


def advise(plan: ExportPlan, facts: ModelFacts | None, machine: Machine | None = None) -> list[Advice]:
    """The advice for `plan`, warnings first.

    Without `facts`, as while a model is still on the Hub, or for a model that the embedded compiler
    does not know, only what the plan alone tells; without `machine`, nothing about disk and memory.
    """
    known = facts if facts is not None and facts.spec is not None else None
    filled = with_defaults(plan, known.max_context if known else None)
    found = [advice for rule in PLAN_RULES for advice in rule(filled, known)]
    if known is not None:
        case = _Case(plan=filled, facts=known, sizes=estimate(known, filled), machine=machine)
        found += [advice for rule in MODEL_RULES for advice in rule(case)]
    return sorted(found, key=lambda advice: advice.severity != "warning")


def _better_quantization(case: _Case) -> str:
    """One answer for every rule about quantization, so that their advice agrees.

    Not quantized for a small model; float32 where float16 overflows.
    """
    quantization = QUANTIZATIONS[case.plan.quantization]
    changes: dict[str, Any] = {}
    if case.sizes.parameter_count < SMALL_MODEL:
        changes["bits"] = None
    if _overflows_f16(case.plan, case.facts):
        changes["model_dtype"] = "float32"
    better = sibling(quantization, **changes)
    return (better or quantization).name


def _passes_f16(facts: ModelFacts) -> bool:
    return facts.model_type.startswith("gemma3")


def _official(plan: ExportPlan) -> bool:
    return plan.backend in ("mlc_llm", "docker")


def _overflows_f16(plan: ExportPlan, facts: ModelFacts) -> bool:
    """mlc_llm computes in the model dtype; the embedded compiler's activations are float32."""
    return _official(plan) and _passes_f16(facts)


def _small_model(case: _Case) -> Iterator[Advice]:
    """4 bit weights below 1 B parameters."""
    sizes, mode = case.sizes, case.plan.quantization
    if QUANTIZATIONS[mode].bits is None or sizes.parameter_count >= SMALL_MODEL:
        return
    if case.plan.source == BUILTIN_DEMO:
        return  # trained to be stored in 4 bits
    better = _better_quantization(case)
    larger = estimate(case.facts, replace(case.plan, quantization=better))
    head = " Its embedding is also its output head, so the loss falls on every token, stop tokens included."
    yield Advice(
        code="q4-small-model",
        severity="warning",
        message=f"{mode} stores {sizes.parameter_count / 1e6:,.1f} M parameters in 4 bits. Below 1 B, models "
        f"lose too much by that.{head if case.facts.decoder().tie_word_embeddings else ''} {better} takes "
        f"{megabytes(larger.disk_bytes)} to download instead of {megabytes(sizes.disk_bytes)}.",
        better={"quantization": better},
    )


def _tied_embedding(case: _Case) -> Iterator[Advice]:
    """4 bit output head of a model that is not small."""
    quantization = QUANTIZATIONS[case.plan.quantization]
    tied = case.facts.decoder().tie_word_embeddings
    if quantization.bits is None or not quantization.quantize_embedding or not tied:
        return
    if case.sizes.parameter_count >= SMALL_MODEL:
        yield Advice(
            code="q4-tied-embedding",
            severity="note",
            message=f"This model's embedding is also its output head, and {quantization.name} stores both in "
            "4 bits. If answers do not stop where they should, quantize less.",
        )


def _f16_range(case: _Case) -> Iterator[Advice]:
    """Gemma 3 in float16."""
    mode = case.plan.quantization
    if not QUANTIZATIONS[mode].needs_f16 or not _passes_f16(case.facts):
        return
    known = "Gemma 3 was trained in bfloat16, and its activations can pass 65504, the largest float16: "
    if not _official(case.plan):
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


def _shader_f16(plan: ExportPlan, facts: ModelFacts | None) -> Iterator[Advice]:
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


def _prefill_above_window(case: _Case) -> Iterator[Advice]:
    """A chunk of the prompt longer than the model's window."""
    window, prefill = case.facts.window, case.plan.prefill_chunk_size or 0
    if window is None or prefill <= window:
        return
    official = _official(case.plan)
    less = estimate(case.facts, replace(case.plan, prefill_chunk_size=window)).temporary_bytes
    if not official and case.sizes.temporary_bytes - less < MIB:
        return  # nothing to gain
    yield Advice(
        code="prefill-above-window",
        severity="warning" if official else "note",
        message=f"A prefill chunk of {prefill} tokens is longer than the model's window of {window}. "
        + (
            "The official compiler's kernels let every token of a chunk see the whole chunk, so answers to "
            "long prompts differ from the model's."
            if official
            else f"The result is the same; a chunk of {window} needs at least {mebibytes(less)} for "
            f"activations instead of {mebibytes(case.sizes.temporary_bytes)}."
        ),
        better={"prefill_chunk_size": window},
    )


def _prefill_above_context(plan: ExportPlan, _facts: ModelFacts | None) -> Iterator[Advice]:
    """A chunk that can never be filled."""
    context, prefill = plan.context_window_size or -1, plan.prefill_chunk_size or 0
    if 0 < context < prefill:
        yield Advice(
            code="prefill-above-context",
            severity="warning",
            message=f"A prefill chunk of {prefill} tokens can never be filled in a context of {context}.",
            better={"prefill_chunk_size": context},
        )


def _context_above_model(case: _Case) -> Iterator[Advice]:
    """More context than the model was trained for."""
    context, most = case.plan.context_window_size or -1, case.facts.max_context
    if most is not None and context > most:
        yield Advice(
            code="context-above-model",
            severity="warning",
            message=f"A context of {context} tokens is above the model's maximum of {most}: past that, "
            "answers fall apart.",
            better={
                "context_window_size": most,
                "prefill_chunk_size": min(case.plan.prefill_chunk_size or most, most),
            },
        )


def _both_windows(plan: ExportPlan, _facts: ModelFacts | None) -> Iterator[Advice]:
    """A context and a rolling window, of which WebLLM takes one."""
    context, rolling = plan.context_window_size or -1, plan.sliding_window_size or -1
    if context > 0 and rolling > 0:
        yield Advice(
            code="both-windows",
            severity="warning",
            message=f"context_window_size = {context} and sliding_window_size = {rolling} are both set; MLC "
            "runtimes take one of them. A window inside the model's own layers needs no setting.",
            better={"sliding_window_size": -1},
        )


def _buffers(case: _Case) -> Iterator[Advice]:
    """Buffers larger than every WebGPU device can bind."""
    size, name = case.sizes.largest_buffer_bytes, case.sizes.largest_buffer_name
    if case.plan.device != "webgpu" or size <= PORTABLE_BINDING_BYTES:
        return
    if size > WEBLLM_BUFFER_BYTES:
        yield Advice(
            code="buffer-too-large",
            severity="warning",
            message=f"The largest buffer ({name}) is {mebibytes(size)}, and WebLLM asks devices for at most "
            "1 GiB: it cannot load.",
            better=_smaller(case),
        )
        return
    limit = "128 MiB bindings" if size <= PORTABLE_BUFFER_BYTES else "128 MiB bindings and 256 MiB buffers"
    yield Advice(
        code="buffer-not-portable",
        severity="note",
        message=f"The largest buffer ({name}) is {mebibytes(size)}. Every WebGPU device offers {limit}; most "
        "desktops offer more, many phones do not.",
    )


def _smaller(case: _Case) -> Mapping[str, Any] | None:
    """The first change that brings every buffer below what WebLLM can ask for."""
    quantization = QUANTIZATIONS[case.plan.quantization]
    changes: list[dict[str, Any]] = []
    if (quantized := sibling(quantization, bits=4)) and quantization.bits is None:
        changes.append({"quantization": quantized.name})
    context = case.plan.context_window_size or -1
    if context > 4096:
        prefill = min(case.plan.prefill_chunk_size or 1024, 1024)
        changes.append({"context_window_size": 4096, "prefill_chunk_size": prefill})
    for change in changes:
        sizes = estimate(case.facts, replace(case.plan, **change))
        if sizes.largest_buffer_bytes <= WEBLLM_BUFFER_BYTES:
            return change
    return None


def _tensor_parallel(plan: ExportPlan, _facts: ModelFacts | None) -> Iterator[Advice]:
    """Shards for several devices on a target that has one."""
    if plan.device in ("webgpu", *MOBILE) and plan.tensor_parallel_shards > 1:
        yield Advice(
            code="tensor-parallel",
            severity="warning",
            message=f"tensor_parallel_shards = {plan.tensor_parallel_shards}, but {plan.device} has one "
            "device.",
            better={"tensor_parallel_shards": 1},
        )


def _batch(case: _Case) -> Iterator[Advice]:
    """Room for many conversations on a target that has one user."""
    plan = case.plan
    if plan.device in ("webgpu", *MOBILE) and plan.max_batch_size > 1:
        one = estimate(case.facts, replace(plan, max_batch_size=1)).kv_cache_bytes
        yield Advice(
            code="batch",
            severity="note",
            message=f"{plan.device} serves one conversation at a time: max_batch_size = "
            f"{plan.max_batch_size} can take {mebibytes(case.sizes.kv_cache_bytes)} of KV cache, 1 "
            f"takes {mebibytes(one)}.",
            better={"max_batch_size": 1},
        )


def _chat_template(case: _Case) -> Iterator[Advice]:
    """A conversation template to be derived from nothing."""
    if case.plan.conv_template == "auto" and not case.facts.has_chat_template:
        yield Advice(
            code="no-chat-template",
            severity="warning",
            message="The model has no chat template, as base models have none: there is nothing to derive "
            "the conversation from. With conv_template = none it continues text; a known name makes it chat.",
            better={"conv_template": "none"},
        )


def _machine(case: _Case) -> Iterator[Advice]:
    """Room on disk and in memory."""
    machine, sizes = case.machine, case.sizes
    if machine is None:
        return
    if sizes.disk_needed_bytes > machine.disk_free:
        yield Advice(
            code="disk",
            severity="warning",
            message=f"The export takes {megabytes(sizes.disk_needed_bytes)}, and the disk of "
            f"{case.plan.output} has {megabytes(machine.disk_free)} free.",
        )
    if sizes.convert_ram_bytes > machine.ram_available:
        yield Advice(
            code="ram",
            severity="warning",
            message=f"Converting takes up to {megabytes(sizes.convert_ram_bytes)} of memory, of which "
            f"{megabytes(machine.ram_available)} of {megabytes(machine.ram_total)} are free. "
            "Close other programs.",
        )


PLAN_RULES: tuple[Callable[[ExportPlan, ModelFacts | None], Iterator[Advice]], ...] = (
    _prefill_above_context,
    _both_windows,
    _tensor_parallel,
    _shader_f16,
)
MODEL_RULES: tuple[Callable[[_Case], Iterator[Advice]], ...] = (
    _small_model,
    _f16_range,
    _tied_embedding,
    _prefill_above_window,
    _context_above_model,
    _buffers,
    _batch,
    _chat_template,
    _machine,
)
