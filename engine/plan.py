"""The one frozen description of a job; both front ends build it and the runner runs it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from engine.errors import UsageError

BackendName = Literal["auto", "embedded", "mlc_llm", "docker"]

BUILTIN_DEMO = "builtin:demo"
"""The source that names the demo model shipped inside the package."""


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """A job, as a preset states it; every field is one TOML key of the section of that name.

    `source` is a Hub id, a folder (absolute once a preset is loaded) or "builtin:demo". `lora_adapter`
    is empty, a folder likewise, or a Hub id, "owner/name@revision" where one is wanted.
    `interpreter` is "auto", or the Python that has mlc_llm (absolute once a preset is loaded).
    `sliding_window_size` and `attention_sink_size` are None where the model's own choice stands.
    Sizes are in tokens.
    """

    source: str
    revision: str = ""
    lora_adapter: str = ""
    model_type: str = "auto"
    conv_template: str = "auto"
    quantization: str
    context_window_size: int | None = None
    prefill_chunk_size: int | None = None
    sliding_window_size: int | None = None
    attention_sink_size: int | None = None
    max_batch_size: int = 1
    tensor_parallel_shards: int = 1
    device: str = "webgpu"
    compile: bool = True
    host: str = "auto"
    opt: str = "O2"
    system_lib_prefix: str = "auto"
    overrides: str = ""
    cuda_arch: str = "auto"
    output: Path = field(default_factory=lambda: Path("dist"))
    backend: BackendName = "auto"
    interpreter: str = "auto"
    description: str = ""


MOBILE = ("iphone", "android")
DEFAULT_CONTEXT = 4096
"""Tokens of context where none is asked for: WebLLM allocates the whole KV cache at load, and 4096
is what nearly all of its prebuilt models use; a model with less gets its own maximum."""
DEFAULT_PREFILL = 1024
"""Tokens of a prefill chunk where none is asked for, as in WebLLM's prebuilt models: temporary
buffers grow with it, and 1024 keeps them within WebGPU's limits."""
_MOBILE_CONTEXT, _MOBILE_PREFILL = 2048, 128


def with_defaults(plan: ExportPlan, max_context: int | None) -> ExportPlan:
    """`plan` with context and prefill chunk filled in where it leaves them open, nothing checked.

    4096 and 1024 tokens, which WebLLM's own models have; 2048 and 128 on phones, as in MLC's apps.
    Neither goes above `max_context`, the model's own maximum. A rolling window
    (`sliding_window_size`) stands in for the context, which is then -1.
    """
    mobile = plan.device in MOBILE
    rolling = plan.sliding_window_size or -1
    context = plan.context_window_size
    if context is None:
        default = _MOBILE_CONTEXT if mobile else DEFAULT_CONTEXT
        context = -1 if rolling > 0 else min(default, max_context or default)
    prefill = plan.prefill_chunk_size
    if prefill is None:
        reach = [size for size in (context, rolling) if size > 0]
        prefill = min([_MOBILE_PREFILL if mobile else DEFAULT_PREFILL, *reach])
    return replace(plan, context_window_size=context, prefill_chunk_size=prefill)


def resolve(plan: ExportPlan, max_context: int | None) -> ExportPlan:
    """`plan` as it will be run: `with_defaults`, and sizes that can work together.

    Raises UsageError for a prefill chunk below 1 or above the context. A context above the model's
    maximum is allowed; advice speaks of it.
    """
    plan = with_defaults(plan, max_context)
    context, prefill = plan.context_window_size, plan.prefill_chunk_size
    assert context is not None
    assert prefill is not None
    if context < 1 and (plan.sliding_window_size or -1) < 1:
        raise UsageError(
            f"context.context_window_size = {context} leaves the model no context.",
            remedy="Give a number of tokens, or leave the key out for the default.",
        )
    limit = max(context, plan.sliding_window_size or -1)
    if not 1 <= prefill <= limit:
        raise UsageError(
            f"context.prefill_chunk_size = {prefill} does not fit a context of {limit} tokens.",
            why="A chunk of the prompt can never be longer than the whole context.",
            remedy=f"Choose a prefill_chunk_size from 1 to {limit}.",
        )
    return plan
