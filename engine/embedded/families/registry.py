"""Every family this compiler knows, and which one a configuration belongs to."""

import difflib
import re
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
from engine.embedded.families.common import check_context
from engine.embedded.spec import DecoderSpec
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
# What models were called before transformers had their code.
_EARLY = {"mixformer-sequential": "phi", "phi-msft": "phi", "stablelm_epoch": "stablelm"}
# LlamaForSequenceClassification, Qwen2ForRewardModel and their like.
_WRITES_NO_TEXT = re.compile("For(?!CausalLM|ConditionalGeneration)[A-Z]")
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


def stated_decoder(config: Mapping[str, Any]) -> tuple[Family, DecoderSpec]:
    """The family and the decoder that a complete mlc-chat-config.json states, with its cache.

    Raises UsageError where context and sliding window are both set, or neither, or the model's cache
    cannot roll, or the context is longer than the model has positions.
    """
    family, model = FAMILIES[config["model_type"]], config["model_config"]
    context, rolling = config["context_window_size"], config["sliding_window_size"]
    if (context > 0) == (rolling > 0):
        raise UsageError(
            f"context_window_size = {context}, sliding_window_size = {rolling}: one of them must be set.",
            why="A rolling cache takes the place of a context of fixed length.",
            remedy="Set one of them to a number of tokens and the other to -1.",
        )
    family.check_rolling(rolling)
    if rolling > 0 and not 0 <= (sinks := config.get("attention_sink_size", -1)) < rolling:
        raise UsageError(
            f"attention_sink_size = {sinks} does not fit sliding_window_size = {rolling}.",
            why="Sinks are the first tokens that a rolling cache keeps; it must have room for others.",
            remedy=f"Set it to a number from 0 to {rolling - 1}.",
        )
    if family.can_roll:
        model = {**model, "sliding_window_size": rolling}
        if rolling > 0:
            model["attention_sink_size"] = sinks
    spec = family.spec(model)
    check_context(spec, context)
    return family, spec


def family_of(config: Mapping[str, Any], model_type: str = "auto") -> Family:
    """The family of a Hugging Face config, or the one `model_type` names.

    Raises UsageError naming the architecture, the nearest family, all supported ones, and whether
    mlc_llm knows the model; for one that writes no text, a classifier for example; and for a `model_type`
    that contradicts the config's own.
    """
    found = (config.get("model_type") or "") if model_type == "auto" else model_type
    architectures = tuple(str(name) for name in config.get("architectures") or ())
    if other := next(filter(_WRITES_NO_TEXT.search, architectures), None):
        raise UsageError(
            f"This model is a {other}, which writes no text.",
            why="Its decoder was trained for labels or scores; as a chat model it would write nonsense.",
            remedy="Choose the chat model that it was made from, or another one.",
        )
    if family := _BY_NAME.get(found):
        own = _BY_NAME.get(str(config.get("model_type")), family)
        if own is not family:
            raise UsageError(
                f"model.model_type = {found!r}, but config.json is that of a {own.model_type} model.",
                why="Where tensors of both have the same names, the export would load and write nonsense.",
                remedy="Leave model.model_type (--model-type) out, or correct model_type in config.json.",
            )
        return family
    if later := _EARLY.get(found):
        raise UsageError(
            f"Model type {found!r} is that of an early revision, which came with code of its own.",
            why=f"Later revisions of the same repositories are of type {later!r}, with other names in "
            "config.json and in the weights.",
            remedy="Take the newest revision of the repository"
            + (", or the mlc_llm backend, which knows this one." if found in MLC_LLM_ONLY else "."),
        )
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
