"""The windows and chunks of an export: what is asked for, within what its model can do."""

from dataclasses import dataclass
from typing import Any

from engine.errors import UsageError
from engine.plan import DEFAULT_CONTEXT, DEFAULT_PREFILL


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes as the command line asks for them, in tokens; None where the model or a default decides."""

    context_window_size: int | None = None
    sliding_window_size: int | None = None
    prefill_chunk_size: int | None = None
    attention_sink_size: int | None = None
    tensor_parallel_shards: int | None = None
    pipeline_parallel_stages: int | None = None
    disaggregation: bool | None = None
    max_batch_size: int = 1


def apply_sizes(model: dict[str, Any], sizes: Sizes, can_roll: bool) -> list[str]:
    """Put the sizes asked for into `model` (a model_config), in place; returns warnings.

    `can_roll` says whether the family has a rolling cache. Raises UsageError for sizes that cannot be.
    """
    one_device = "The embedded compiler builds for one device."
    rolling = sizes.sliding_window_size or -1
    windows: tuple[int, ...] = (rolling,) if can_roll and rolling > 0 else (-1,)
    sinks: tuple[int, ...] = (sizes.attention_sink_size or 0,) if rolling > 0 else (-1, 0)
    for flag, value, allowed, why in (
        ("sliding-window-size", sizes.sliding_window_size, windows, "The windows of its layers are fixed."),
        ("attention-sink-size", sizes.attention_sink_size, sinks, "Sinks belong to a rolling cache."),
        ("tensor-parallel-shards", sizes.tensor_parallel_shards, (1,), one_device),
        ("pipeline-parallel-stages", sizes.pipeline_parallel_stages, (1,), one_device),
        ("disaggregation", sizes.disaggregation, (False,), "It is for servers of several GPUs."),
    ):
        if value is not None and value not in allowed:
            raise UsageError(
                f"--{flag} {value} is not possible here.",
                why=why,
                remedy=f"Leave --{flag} out, or use the mlc_llm backend.",
            )
    if rolling > 0:
        return _apply_rolling(model, sizes, rolling)
    maximum: int = model["context_window_size"]
    context = (
        min(maximum, DEFAULT_CONTEXT) if sizes.context_window_size is None else sizes.context_window_size
    )
    prefill = _prefill_of(sizes, context, "context-window-size")
    _check_positive(
        context_window_size=context, prefill_chunk_size=prefill, max_batch_size=sizes.max_batch_size
    )
    model["context_window_size"], model["prefill_chunk_size"] = context, prefill
    model["max_batch_size"] = sizes.max_batch_size
    if context > maximum:
        return [
            f"context {context} is above the {maximum} tokens this model was made for: "
            "expect nonsense beyond them"
        ]
    return []


def _apply_rolling(model: dict[str, Any], sizes: Sizes, rolling: int) -> list[str]:
    """`apply_sizes` for a rolling cache of `rolling` tokens, which takes the place of the context."""
    if (sizes.context_window_size or -1) > 0:
        raise UsageError(
            f"--context-window-size {sizes.context_window_size} and --sliding-window-size {rolling} are both "
            "set.",
            why="A rolling cache takes the place of the context: runtimes take one of the two.",
            remedy="Leave one of them out, or give it as -1.",
        )
    sink = model["attention_sink_size"] if sizes.attention_sink_size is None else sizes.attention_sink_size
    if not 0 <= sink < rolling:
        raise UsageError(
            f"--attention-sink-size {sink} does not fit --sliding-window-size {rolling}.",
            remedy=f"Give --attention-sink-size a number from 0 to {rolling - 1}.",
        )
    maximum = model["context_window_size"]
    prefill = _prefill_of(sizes, rolling, "sliding-window-size")
    _check_positive(prefill_chunk_size=prefill, max_batch_size=sizes.max_batch_size)
    model["prefill_chunk_size"] = prefill
    model["context_window_size"] = -1
    model["sliding_window_size"], model["attention_sink_size"] = rolling, sink
    model["max_batch_size"] = sizes.max_batch_size
    if rolling > maximum:
        return [
            f"a rolling cache of {rolling} tokens is above the {maximum} tokens this model was made for: "
            "expect nonsense beyond them"
        ]
    return []


def _prefill_of(sizes: Sizes, limit: int, limit_flag: str) -> int:
    """The prefill chunk: what is asked for, or the default, within `limit`."""
    prefill = min(limit, DEFAULT_PREFILL) if sizes.prefill_chunk_size is None else sizes.prefill_chunk_size
    if prefill > limit > 0:
        raise UsageError(
            f"--prefill-chunk-size {prefill} is above --{limit_flag} {limit}.",
            why="A chunk can never be longer than all the text the model may see.",
            remedy=f"Give --prefill-chunk-size {limit} or less.",
        )
    return prefill


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} is {value}.", remedy=f"Give {flag} a number above 0.")
