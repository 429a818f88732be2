"""Where in the wizard each piece of advice belongs, and its title there."""

from engine.advice import Advice

STEP_AND_TITLE: dict[str, tuple[str, str]] = {
    "q4-small-model": ("quantize", "Few bits below 1 B parameters"),
    "f16-range": ("quantize", "Gemma 3 in float16"),
    "q4-tied-embedding": ("quantize", "4 bit output head"),
    "shader-f16": ("quantize", "Needs shader-f16"),
    "buffer-too-large": ("quantize", "A buffer too large for WebLLM"),
    "buffer-not-portable": ("quantize", "A large buffer"),
    "prefill-above-context": ("context", "Prefill chunk above the context"),
    "prefill-above-window": ("context", "Prefill chunk above the model's window"),
    "context-above-model": ("context", "Context above the model's maximum"),
    "rolling-above-model": ("context", "Rolling cache above the model's maximum"),
    "both-windows": ("context", "Context and sliding window"),
    "batch": ("context", "Room for several conversations"),
    "tensor-parallel": ("target", "Several devices"),
    "mlc-llm-gemma3": ("target", "Gemma 3 compiled by mlc_llm"),
    "mlc-llm-rope": ("target", "mlc_llm and transformers 5"),
    "no-chat-template": ("model", "No chat template"),
    "cache": ("review", "Not enough room for the model"),
    "disk": ("review", "Not enough room on the disk"),
    "ram": ("review", "Little memory"),
}
"""By code: the step where it is told first, and a title. The review tells them all."""


def title_of(advice: Advice) -> str:
    """The title of `advice`."""
    return STEP_AND_TITLE[advice.code][1]


def for_step(step: str, found: list[Advice]) -> list[Advice]:
    """Those of `found` that belong to `step`, in their order."""
    return [advice for advice in found if STEP_AND_TITLE[advice.code][0] == step]
