"""`tokenizer_info` of mlc-chat-config.json, by the rules of mlc_llm's `DetectTokenizerInfo`."""

from collections.abc import Mapping
from typing import Any


def _parts(stage: Any, children: str) -> list[Mapping[str, Any]]:
    """A tokenizer.json stage as a list: the members of a Sequence, else the stage itself."""
    if not isinstance(stage, Mapping):
        return []
    return list(stage[children]) if stage.get("type") == "Sequence" else [stage]


def tokenizer_info(tokenizer_json: Mapping[str, Any]) -> dict[str, Any]:
    """How tokens become text: postprocessing method, a space put before text, a space taken off after."""
    decoders = _parts(tokenizer_json.get("decoder"), "decoders")
    method = "byte_fallback"
    for decoder in decoders:
        method = {"ByteLevel": "byte_level", "ByteFallback": "byte_fallback"}.get(decoder["type"], method)
    return {
        "token_postproc_method": method,
        "prepend_space_in_encode": any(
            part.get("type") == "Prepend" and part.get("prepend") == "▁"
            for part in _parts(tokenizer_json.get("normalizer"), "normalizers")
        ),
        "strip_space_in_decode": any(
            (part.get("type"), part.get("content"), part.get("start"), part.get("stop"))
            == ("Strip", " ", 1, 0)
            for part in decoders
        ),
    }
