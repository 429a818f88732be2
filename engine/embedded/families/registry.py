"""Every family this compiler knows, and which one a configuration belongs to."""

import difflib
from collections.abc import Mapping
from typing import Any

from engine.embedded.families import gemma3_text, llama
from engine.embedded.families.base import Family
from engine.errors import UsageError

FAMILIES: dict[str, Family] = {family.model_type: family for family in (llama.FAMILY, gemma3_text.FAMILY)}


def family_of(config: Mapping[str, Any], model_type: str = "auto") -> Family:
    """The family of a Hugging Face config, or the one `model_type` names.

    Raises UsageError naming the architecture, the nearest family and all supported ones.
    """
    found = config.get("model_type", "") if model_type == "auto" else model_type
    if family := FAMILIES.get(found):
        return family
    architectures = tuple(config.get("architectures") or ())
    if model_type == "auto":
        for family in FAMILIES.values():
            if set(family.architectures) & set(architectures):
                return family
    shown = ", ".join(architectures) or "no architecture"
    near = difflib.get_close_matches(found, FAMILIES, n=1, cutoff=0.4)
    nearest = f" The nearest is {near[0]}." if near else ""
    raise UsageError(
        f"Model type {found!r} ({shown}) is not supported by the embedded compiler.",
        why=f"Supported are {', '.join(FAMILIES)}.{nearest}",
        remedy="Export it with the mlc_llm backend, if that supports it, or choose another model.",
    )
