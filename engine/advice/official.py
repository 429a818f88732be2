"""Rules about the official compiler: what it is known to compute otherwise than transformers."""

from collections.abc import Iterator, Mapping
from typing import Any

from engine.advice.case import Advice, Case, is_official
from engine.catalog import COMPILED_HERE


def gemma3(case: Case) -> Iterator[Advice]:
    """One rope theta for all layers, where Gemma 3 has two."""
    if is_official(case.plan) and case.plan.compile and case.facts.model_type.startswith("gemma3"):
        yield Advice(
            code="mlc-llm-gemma3",
            severity="warning",
            message="mlc_llm gives the layers of Gemma 3 that have a window the rope theta of those that "
            "have none: its logits are not the model's. Weights are not concerned; a library of the embedded "
            "backend is right.",
            better=_embedded(case),
        )


def rope_parameters(case: Case) -> Iterator[Advice]:
    """A config.json of transformers 5."""
    if is_official(case.plan) and case.facts.is_rope_nested:
        yield Advice(
            code="mlc-llm-rope",
            severity="warning",
            message="config.json was written by transformers 5, which keeps rope_theta in rope_parameters. "
            "mlc_llm does not look there: it stops, or takes 10000 for the theta and answers nonsense. The "
            "embedded backend reads both forms.",
            better=_embedded(case),
        )


def _embedded(case: Case) -> Mapping[str, Any] | None:
    """The embedded backend, where it covers the target."""
    if case.plan.compile and case.plan.device not in COMPILED_HERE:
        return None
    return {"backend": "embedded"}
