"""mlc-chat-config.json and the tokenizer, held to what WebLLM 0.2.86 and mlc_llm read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine import paths
from engine.artifacts.report import Report
from engine.layout import CONFIG_NAME

_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "model_type": str,
    "quantization": str,
    "model_config": dict,
    "vocab_size": int,
    "context_window_size": int,
    "sliding_window_size": int,
    "prefill_chunk_size": int,
    "attention_sink_size": int,
    "tokenizer_files": list,
    "conv_template": dict,
    "temperature": (int, float),
    "top_p": (int, float),
    "repetition_penalty": (int, float),
    "presence_penalty": (int, float),
    "frequency_penalty": (int, float),
}


def verify(output: Path, report: Report) -> dict[str, Any] | None:
    """Check configuration and tokenizer; the configuration, or None where it is unusable."""
    config: Any = None
    with report.guarding("configuration"):
        config = json.loads((output / CONFIG_NAME).read_text(encoding="utf-8"))
        wrong = [
            f"{key} is {config.get(key)!r}"
            for key, kind in _REQUIRED.items()
            if not isinstance(config.get(key), kind) or isinstance(config.get(key), bool)
        ]
        if not report.add("configuration", wrong, f"{config['model_type']}, {config['quantization']}"):
            return None
    if not isinstance(config, dict):
        return None
    _windows(config, report)
    with report.guarding("tokenizer files"):
        tokenizer = _tokenizer(output, config, report)
        with report.guarding("stop tokens"):
            _tokens(config, tokenizer, report)
    return config


def _windows(config: Mapping[str, Any], report: Report) -> None:
    """WebLLM refuses a configuration with both windows as well as one with neither."""
    sizes = {key: config[key] for key in ("context_window_size", "sliding_window_size")}
    set_ = {key: value for key, value in sizes.items() if value != -1}
    problems = [f"{key} = {value}" for key, value in set_.items() if value < 1]
    if len(set_) != 1:
        problems = [f"{' and '.join(f'{k} = {v}' for k, v in sizes.items())}: exactly one may be set"]
    window, chunk = max(sizes.values()), config["prefill_chunk_size"]
    if not 1 <= chunk <= window:
        problems.append(f"prefill_chunk_size = {chunk} with a window of {window}")
    sinks = config["attention_sink_size"]
    if "sliding_window_size" in set_ and not 0 <= sinks < window:
        problems.append(f"attention_sink_size = {sinks} with a window of {window}")
    report.add("window", problems, f"{next(iter(set_), '')} = {window}, prefill_chunk_size = {chunk}")


def _tokenizer(output: Path, config: Mapping[str, Any], report: Report) -> Tokenizer | None:
    """The tokenizer of tokenizer.json, None where there is only SentencePiece's."""
    names = config["tokenizer_files"]
    problems = [f"{name} is missing" for name in names if not paths.is_file(output / name)]
    if not {"tokenizer.json", "tokenizer.model"} & set(names):
        problems.append("neither tokenizer.json nor tokenizer.model is listed")
    tokenizer = None
    path = output / "tokenizer.json"
    if path.name in names and path.is_file():
        try:
            tokenizer = Tokenizer.from_buffer(path.read_bytes())
        except Exception as error:
            problems.append(f"tokenizer.json cannot be loaded: {error}")
    report.add("tokenizer files", problems, ", ".join(names))
    return tokenizer


def _tokens(config: Mapping[str, Any], tokenizer: Tokenizer | None, report: Report) -> None:
    """Ids that the runtime compares with or prepends must be tokens, and have a row in the logits."""
    vocab = config["vocab_size"]
    conversation = config["conv_template"]
    stops, prefix = conversation["stop_token_ids"], conversation.get("system_prefix_token_ids") or []
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    special = [config[key] for key in keys if config.get(key) is not None]

    def unknown(ids: list[Any]) -> list[str]:
        known = tokenizer.id_to_token if tokenizer else str
        return [f"{i!r} is no token" for i in ids if type(i) is not int or not 0 <= i < vocab or not known(i)]

    problems = unknown(stops) if stops or conversation.get("stop_str") else ["none, so no answer would end"]
    named = ", ".join(f"{i} {tokenizer.id_to_token(i) if tokenizer else ''}".strip() for i in stops)
    report.add("stop tokens", problems, named or f"stop strings {conversation.get('stop_str')}")
    others = [v for value in special for v in (value if isinstance(value, list) else [value])]
    report.add("special tokens", unknown([*others, *prefix]), f"{len(others) + len(prefix)} ids")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) if tokenizer else -1
    problems = [f"token id {largest} has no place in vocab_size = {vocab}"] if largest >= vocab else []
    inner = config["model_config"].get("vocab_size", vocab)
    if inner != vocab:
        problems.append(f"vocab_size = {vocab}, but {inner} in model_config")
    report.add("vocabulary", problems, f"{vocab} rows, largest token id {largest}")
