"""The sizes of the context step: what was typed, what it means, and what limits it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.catalog import QUANTIZATIONS
from engine.errors import UsageError
from engine.estimate import PORTABLE_BINDING_BYTES, WEBLLM_BUFFER_BYTES, estimate, kv_cache_bytes
from engine.model.facts import ModelFacts
from engine.plan import MOBILE, ExportPlan, resolve, with_defaults
from engine.preset_schema import KEYS
from engine.units import mebibytes

CONTEXT, PREFILL, WINDOW = "context_window_size", "prefill_chunk_size", "sliding_window_size"
FIELDS = (CONTEXT, PREFILL, WINDOW)

_KEYS = {key.field: key for key in KEYS if key.field in FIELDS}
_CONTEXT_STEPS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_MOST_STEPS = 7  # fit beside a field in 80 columns
_PAGE = 16  # tokens, as the KV cache is allocated
_PREFILL_STEPS = (64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, kw_only=True)
class Typed:
    """`plan` has what could be read; `problems` says per field why the rest could not."""

    plan: ExportPlan
    problems: Mapping[str, str]


def read(texts: Mapping[str, str], plan: ExportPlan, facts: ModelFacts | None) -> Typed:
    """The sizes of `texts`, by field, in `plan`; an empty text leaves the choice to the default.

    What a field may have is what a preset may have; how fields fit together is what a run asks.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field, text in texts.items():
        key = _KEYS[field]
        try:
            value = int(text) if text.strip() else None
        except ValueError:
            value = -2
        if value is not None and not key.accepts(value):
            problems[field] = f"Allowed: {key.allowed}."
        else:
            values[field] = value
    chosen = replace(plan, **values)
    if not problems:
        try:
            resolve(chosen, facts.max_context if facts else None)
        except UsageError as error:
            problems |= _misfit(chosen, facts, error)
    if rolls(chosen) and WINDOW not in problems:
        if facts is not None and facts.spec is not None and not facts.can_roll:
            problems[WINDOW] = "The cache of this model does not roll. Leave this empty."
        elif (chosen.context_window_size or -1) > 0:
            problems[WINDOW] = "A rolling cache takes the place of the context window: empty one of the two."
    return Typed(plan=chosen, problems=problems)


def rolls(plan: ExportPlan) -> bool:
    """The plan asks for a rolling cache."""
    return (plan.sliding_window_size or -1) > 0


def shown(value: int | None) -> str:
    """A size as a field shows it."""
    return "" if value is None else str(value)


def default_of(field: str, plan: ExportPlan, facts: ModelFacts | None) -> int:
    """What an empty `field` comes to."""
    left_open: dict[str, Any] = {field: None}
    filled = with_defaults(replace(plan, **left_open), facts.max_context if facts else None)
    value = getattr(filled, field)
    return value if isinstance(value, int) else -1


def steps(field: str, plan: ExportPlan, facts: ModelFacts | None) -> tuple[int, ...]:
    """Sizes worth a key press: powers of two up to the limit, and the limit itself."""
    most = facts.max_context if facts else None
    if field == CONTEXT:
        found = {size for size in _CONTEXT_STEPS if most is None or size <= most}
        return tuple(sorted(found | ({most} if most else set())))[-_MOST_STEPS:]
    if field == WINDOW:
        if facts is not None and not facts.can_roll:
            return ()
        return tuple(size for size in _CONTEXT_STEPS if most is None or size <= most)
    limit = _reach(plan, facts) or _PREFILL_STEPS[-1]
    return tuple(size for size in _PREFILL_STEPS if size <= limit) or (limit,)


def step_from(current: int | None, sizes: tuple[int, ...], up: bool) -> int:
    """The next of `sizes` above or below `current`; the last where there is none."""
    if current is None:
        return sizes[-1] if up else sizes[0]
    if up:
        return next((size for size in sizes if size > current), sizes[-1])
    return next((size for size in reversed(sizes) if size < current), sizes[0])


def context_limits(plan: ExportPlan, facts: ModelFacts | None) -> str:
    """What bounds the context."""
    if rolls(plan):
        return "Empty: the rolling cache below takes its place, and a conversation may go on without end."
    whose = "MLC's phone apps take" if plan.device in MOBILE else "WebLLM's own models have"
    most = facts.max_context if facts else None
    top = f"The model was made for {most:,}. " if most else ""
    default = default_of(CONTEXT, plan, facts)
    as_others = "" if most == default else f", as {whose}"
    return (
        f"Tokens of prompt and answer together, all kept in the KV cache. {top}Empty means "
        f"{default:,}{as_others}."
    )


def prefill_limits(plan: ExportPlan, facts: ModelFacts | None) -> str:
    """What bounds the prefill chunk."""
    most = _reach(plan, facts)
    top = f"1 to {most:,}: " if most else ""
    return (
        f"{top}how many tokens of a prompt are computed at once. More is faster on long prompts and takes "
        f"more memory. Empty means {default_of(PREFILL, plan, facts):,}."
    )


def rolling_limits(plan: ExportPlan) -> str:
    """What a rolling cache is, and how many of its tokens stay."""
    sinks = plan.attention_sink_size
    first = "first" if sinks is None else f"first {sinks}"
    return (
        f"Of a text of any length the model keeps the {first} and the latest tokens, as many as this. Empty "
        "means a context window, with the model's own windows."
    )


def window_told(plan: ExportPlan, facts: ModelFacts | None) -> str:
    """The model's own windows, or nothing where it has none, or a rolling cache takes their place."""
    if facts is None or facts.window is None or rolls(plan):
        return ""
    layers = facts.spec.layers if facts.spec else ()
    windowed = sum(layer.window is not None for layer in layers)
    share = f" in {windowed} of {len(layers)} layers" if layers else ""
    return f"The latest {facts.window:,} tokens{share}, as the model was trained."


def costs(plan: ExportPlan, facts: ModelFacts | None) -> list[tuple[str, str, str]]:
    """Name, size and explanation of what the sizes of `plan` cost on the device."""
    if facts is None or facts.spec is None:
        return []
    filled = with_defaults(plan, facts.max_context)
    sizes = estimate(facts, filled)
    tokens = max(filled.context_window_size or 0, filled.sliding_window_size or 0)
    each = kv_cache_bytes(facts.spec, QUANTIZATIONS[plan.quantization], _one_page(filled)) // _PAGE
    spare = " and 2 pages" if rolls(filled) else ""
    times = f" x {plan.max_batch_size} conversations" if plan.max_batch_size > 1 else ""
    rows = [
        (
            "KV cache",
            mebibytes(sizes.kv_cache_bytes),
            f"{each / 1024:,.1f} KiB a token x {tokens:,}{spare}{times}",
        ),
        ("activations", mebibytes(sizes.temporary_bytes), "or more, for one prefill chunk"),
        ("on device", mebibytes(sizes.vram_bytes), "or more, with the weights"),
    ]
    if plan.device == "webgpu":
        largest = sizes.largest_buffer_bytes
        if largest > WEBLLM_BUFFER_BYTES:
            limit = "above WebLLM's limit of 1 GiB"
        elif largest > PORTABLE_BINDING_BYTES:
            limit = "above some devices' 128 MiB"
        else:
            limit = "within every device's 128 MiB"
        rows.append(("largest buffer", mebibytes(largest), limit))
    return rows


def _reach(plan: ExportPlan, facts: ModelFacts | None) -> int:
    """The tokens that the model sees at once, 0 where nothing bounds them."""
    context = with_defaults(plan, facts.max_context if facts else None).context_window_size
    return max(context or 0, plan.sliding_window_size or 0, 0)


def _one_page(plan: ExportPlan) -> ExportPlan:
    return replace(plan, context_window_size=_PAGE, sliding_window_size=-1, max_batch_size=1)


def _misfit(plan: ExportPlan, facts: ModelFacts | None, error: UsageError) -> dict[str, str]:
    """`error` of `resolve`, at the field to change."""
    if PREFILL not in error.what:
        return {CONTEXT: "The model needs some context: give a number of tokens, or leave this empty."}
    whole = "rolling cache" if rolls(plan) else "context"
    return {PREFILL: f"A chunk cannot be longer than the {whole}: 1 to {_reach(plan, facts):,} tokens."}
