"""Every family this compiler knows, and which one a configuration belongs to."""

import difflib
from collections.abc import Mapping
from typing import Any

from engine.embedded.families import (
    gemma,
    gemma3_text,
    gpt2,
    gpt_neox,
    llama,
    mistral,
    olmo2,
    phi,
    phi3,
    qwen,
    stablelm,
)
from engine.embedded.families.base import Family
from engine.errors import UsageError

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        llama.FAMILY,
        mistral.FAMILY,
        gemma.FAMILY,
        gemma.FAMILY_2,
        gemma3_text.FAMILY,
        qwen.FAMILY,
        qwen.FAMILY_3,
        gpt_neox.FAMILY,
        phi.FAMILY,
        phi3.FAMILY,
        olmo2.FAMILY,
        stablelm.FAMILY,
        gpt2.FAMILY,
    )
}
_BY_NAME = FAMILIES | {alias: family for family in FAMILIES.values() for alias in family.aliases}

MLC_LLM_ONLY = frozenset(
    {"baichuan", "chatglm", "cohere", "deepseek", "deepseek_v2", "deepseek_v3", "gpt_bigcode", "gptj"}
    | {
        "internlm",
        "internlm2",
        "llama4",
        "llava",
        "minicpm",
        "ministral3",
        "mixformer-sequential",
        "mixtral",
        "nemotron",
        "olmo",
    }
    | {"orion", "phi-msft", "phi3_v", "qwen", "qwen2_moe", "qwen3_5", "qwen3_5_text", "qwen3_moe", "rwkv5"}
    | {"rwkv6", "starcoder2"}
)
"""The model types that generate text which mlc_llm knows (its `model/model.py`, July 2026) and we do not."""


def family_of(config: Mapping[str, Any], model_type: str = "auto") -> Family:
    """The family of a Hugging Face config, or the one `model_type` names.

    Raises UsageError naming the architecture, the nearest family, all supported ones, and whether
    mlc_llm knows the model.
    """
    found = config.get("model_type", "") if model_type == "auto" else model_type
    if family := _BY_NAME.get(found):
        return family
    architectures = tuple(config.get("architectures") or ())
    if model_type == "auto" and found not in MLC_LLM_ONLY:
        for family in FAMILIES.values():
            if set(family.architectures) & set(architectures):
                return family
    shown = ", ".join(architectures) or "no architecture"
    near = difflib.get_close_matches(found, _BY_NAME, n=1, cutoff=0.4)
    nearest = f" The nearest is {near[0]}." if near else ""
    raise UsageError(
        f"Model type {found!r} ({shown}) is not supported by the embedded compiler.",
        why=f"Supported are {', '.join(FAMILIES)}.{nearest}",
        remedy="Export it with the mlc_llm backend, which knows this model type, or choose another model."
        if found in MLC_LLM_ONLY
        else "mlc_llm (July 2026) does not know it either: choose another model.",
    )
