"""Plans and sizes in the words of the screens. Nothing here knows a widget."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Fix, WizardError
from engine.plan import BUILTIN_DEMO, ExportPlan
from engine.units import mebibytes, megabytes

if TYPE_CHECKING:
    # The first screen needs words, but no sizes.
    from engine.choices import QuantizationChoice
    from engine.estimate import Estimate
    from engine.machine import Machine

Row = tuple[str, str]
"""What it is, and how much."""

_FIELD_NAMES = {
    "context_window_size": "context",
    "prefill_chunk_size": "prefill chunk",
    "sliding_window_size": "sliding window",
    "max_batch_size": "batch size",
    "tensor_parallel_shards": "shards",
    "conv_template": "template",
}


def bits(value: float) -> str:
    """Bits per weight, as many places as tell q4f16_1 from q4f32_1."""
    return f"{value:.2f}"


def source_name(plan: ExportPlan) -> str:
    """The model in few words: a Hub id, the name of a folder, or the demo."""
    if not plan.source:
        return ""
    if plan.source == BUILTIN_DEMO:
        return "demo model"
    path = Path(plan.source)
    return path.name if path.is_absolute() else plan.source


def adapter_name(plan: ExportPlan) -> str:
    """The LoRA adapter in few words, as `source_name`."""
    path = Path(plan.lora_adapter)
    return path.name if path.is_absolute() else plan.lora_adapter


def makes(plan: ExportPlan) -> str:
    """Target, and whether a library is compiled for it."""
    return plan.device if plan.compile else f"{plan.device}, weights only"


def context_of(plan: ExportPlan) -> str:
    """The context of a plan whose sizes are filled in; the rolling window where there is no context."""
    context, rolling = plan.context_window_size, plan.sliding_window_size or -1
    if context is None:
        return "default"
    return f"{context:,}" if context > 0 else f"rolling, {rolling:,}"


def chunk_of(plan: ExportPlan) -> str:
    """The prefill chunk of a plan."""
    return "default" if plan.prefill_chunk_size is None else f"{plan.prefill_chunk_size:,}"


def digest(plan: ExportPlan) -> str:
    """A plan in one short line."""
    return " / ".join(part for part in (source_name(plan), plan.quantization, makes(plan)) if part)


def offer(better: Mapping[str, Any]) -> str:
    """What taking advice does: "Use q0f16", "Use context 4,096, prefill chunk 1,024"."""
    words = []
    for field, value in better.items():
        if field == "quantization":
            words.append(str(value))
        elif field == "sliding_window_size" and value == -1:
            words.append("no sliding window")
        else:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            words.append(f"{_FIELD_NAMES.get(field, field)} {shown}")
    return f"Use {', '.join(words)}"


def short_commit(revision: str) -> str:
    """A commit as short as people tell it; a branch or tag as it is."""
    return revision[:12] if re.fullmatch(r"[0-9a-f]{40}", revision) else revision


_RARE = (
    ("revision", "revision"),
    ("type", "model_type"),
    ("template", "conv_template"),
    ("batch", "max_batch_size"),
    ("shards", "tensor_parallel_shards"),
    ("host", "host"),
    ("CUDA", "cuda_arch"),
    ("opt", "opt"),
    ("overrides", "overrides"),
    ("backend", "backend"),
    ("interpreter", "interpreter"),
)


def decisions(plan: ExportPlan) -> list[Row]:
    """What was decided, of a plan whose sizes are filled in; what is rarely changed, only where it was."""
    usual = ExportPlan(source="", quantization="")
    return [
        ("model", source_name(plan) or "not chosen"),
        *((("adapter", adapter_name(plan)),) if plan.lora_adapter else ()),
        *(
            (label, short_commit(v) if field == "revision" else str(v))
            for label, field in _RARE
            if (v := getattr(plan, field)) != getattr(usual, field)
        ),
        ("quantize", plan.quantization),
        ("context", context_of(plan)),
        ("prefill", chunk_of(plan)),
        ("target", makes(plan)),
        ("output", str(plan.output)),
    ]


def estimates(sizes: "Estimate") -> list[Row]:
    """The sizes of an export; lower bounds are told as such."""
    return [
        ("parameters", f"{sizes.parameter_count / 1e6:,.1f} M"),
        ("download", megabytes(sizes.disk_bytes)),
        ("weights", mebibytes(sizes.weight_bytes)),
        ("KV cache", mebibytes(sizes.kv_cache_bytes)),
        ("on device", f"{mebibytes(sizes.vram_bytes)} or more"),
    ]


def against_machine(sizes: "Estimate", machine: "Machine") -> list[Row]:
    """What the export takes of this machine, and what there is."""
    where = "on the same disk" if machine.cache_free is None else f"of {megabytes(machine.cache_free)} free"
    fetch = f"{megabytes(sizes.fetch_bytes)} from the Hub into its client's cache, {where}"
    return [
        *([("fetch", fetch)] if sizes.fetch_bytes else []),
        ("disk", f"{megabytes(sizes.disk_needed_bytes)} of {megabytes(machine.disk_free)} free"),
        (
            "memory",
            f"up to {megabytes(sizes.convert_ram_bytes)} of {megabytes(machine.ram_available)} free, "
            f"of {megabytes(machine.ram_total)}",
        ),
    ]


def told(error: WizardError) -> str:
    """What happened and why, where the remedy is beside it anyway."""
    return " ".join(part for part in (error.what, error.why) if part)


def for_screen(error: WizardError) -> str:
    """All of `error`, with the key that helps."""
    return "\n".join(part for part in (error.what, error.why, remedy_of(error)) if part)


_BY_KEY: Mapping[Fix, str] = {
    "output": "The folder is chosen in the step Review, key o.",
    "compile": "Weights only is a choice of the step Target.",
    "fresh": "R, in the step Run, does.",
    "resume": "r, in the step Run, goes on from there.",
}
"""How a remedy is followed on the screen."""


def remedy_of(error: WizardError) -> str:
    """The remedy of `error`, with the key that helps."""
    between = "\n" if "\n" in error.remedy else " "  # commands have lines of their own
    return between.join(part for part in (error.remedy, _BY_KEY.get(error.fix, "")) if part)


def quantization_detail(choice: "QuantizationChoice") -> str:
    """What the figures of one quantization come to; nothing for one that cannot be had."""
    sizes = choice.sizes
    if choice.refused is not None:
        return ""
    if sizes is None:
        return "Sizes are known once the model has been read."
    shards = "1 shard" if sizes.shards == 1 else f"{sizes.shards} shards"
    wide = ", stored as bfloat16" if sizes.disk_bytes < sizes.weight_bytes else ""
    return (
        f"{choice.quantization.name}: {sizes.disk_bytes:,} bytes in {shards}{wide}, "
        f"{mebibytes(sizes.weight_bytes)} in memory."
    )


def broken(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, ended after words, longer ones after slashes."""
    lines = [""]
    for part in _parts(text, width):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        for start in range(0, len(part), width):
            piece = part[start : start + width]
            if start:
                lines.append("")
            lines[-1] += piece
    return [line.rstrip() for line in lines]


def _parts(text: str, width: int) -> Iterator[str]:
    """What no line should end within."""
    for word in re.split(r"(?<= )", text):
        if len(word.rstrip()) <= width:
            yield word
        else:
            yield from re.split(r"(?<=[/\\])", word)
