"""Rules about context, prefill chunk and windows, and the buffers that they need."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from engine.advice.case import Advice, Case, is_official
from engine.catalog import QUANTIZATIONS, sibling
from engine.estimate import PORTABLE_BINDING_BYTES, PORTABLE_BUFFER_BYTES, WEBLLM_BUFFER_BYTES, estimate
from engine.model.facts import ModelFacts
from engine.plan import MOBILE, ExportPlan
from engine.units import MIB, mebibytes


def prefill_above_window(case: Case) -> Iterator[Advice]:
    """A chunk of the prompt longer than the model's window."""
    window, prefill = case.facts.window, case.plan.prefill_chunk_size or 0
    if window is None or prefill <= window or (case.plan.sliding_window_size or -1) > 0:
        return
    official = is_official(case.plan)
    less = estimate(case.facts, replace(case.plan, prefill_chunk_size=window)).temporary_bytes
    if not official and case.sizes.temporary_bytes - less < MIB:
        return  # nothing to gain
    yield Advice(
        code="prefill-above-window",
        severity="warning" if official else "note",
        message=f"A prefill chunk of {prefill:,} tokens is longer than the model's window of {window:,}. "
        + (
            "The official compiler's kernels let every token of a chunk see the whole chunk, so answers to "
            "long prompts differ from the model's."
            if official
            else f"The result is the same; a chunk of {window:,} needs at least {mebibytes(less)} for "
            f"activations instead of {mebibytes(case.sizes.temporary_bytes)}."
        ),
        better={"prefill_chunk_size": window},
    )


def prefill_above_context(plan: ExportPlan, _facts: ModelFacts | None) -> Iterator[Advice]:
    """A chunk that can never be filled."""
    context, prefill = plan.context_window_size or -1, plan.prefill_chunk_size or 0
    if 0 < context < prefill:
        yield Advice(
            code="prefill-above-context",
            severity="warning",
            message=f"A prefill chunk of {prefill:,} tokens can never be filled in a context of {context:,}.",
            better={"prefill_chunk_size": context},
        )


def context_above_model(case: Case) -> Iterator[Advice]:
    """More context than the model was trained for."""
    context, most = case.plan.context_window_size or -1, case.facts.max_context
    if most is not None and context > most:
        yield Advice(
            code="context-above-model",
            severity="warning",
            message=f"A context of {context:,} tokens is above the model's maximum of {most:,}: past that, "
            "answers fall apart.",
            better={
                "context_window_size": most,
                "prefill_chunk_size": min(case.plan.prefill_chunk_size or most, most),
            },
        )


def rolling_above_model(case: Case) -> Iterator[Advice]:
    """A larger rolling cache than the model was trained for."""
    rolling, most = case.plan.sliding_window_size or -1, case.facts.max_context
    if most is not None and rolling > most:
        yield Advice(
            code="rolling-above-model",
            severity="warning",
            message=f"A rolling cache of {rolling:,} tokens is above the model's maximum of {most:,}: past "
            "that, answers fall apart.",
            better={
                "sliding_window_size": most,
                "prefill_chunk_size": min(case.plan.prefill_chunk_size or most, most),
            },
        )


def both_windows(plan: ExportPlan, _facts: ModelFacts | None) -> Iterator[Advice]:
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


def buffers(case: Case) -> Iterator[Advice]:
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


def _smaller(case: Case) -> Mapping[str, Any] | None:
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


def batch(case: Case) -> Iterator[Advice]:
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
