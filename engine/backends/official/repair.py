"""What mlc_llm writes, made what today's runtimes read: each change stands in the log and the receipt."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.embedded.chat.choose import Choice
from engine.embedded.chat.folder import ModelFolder
from engine.layout import CONFIG_NAME, MANIFEST_NAME, OLD_MANIFEST_NAME

_NEEDED: dict[str, Any] = {
    "sliding_window_size": -1,
    "attention_sink_size": -1,
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
"""Fields without which WebLLM does not load or generate, and the values that change nothing; versions of
mlc_llm before May 2024 leave some of them out."""


def manifests(folder: Path) -> list[str]:
    """Give the manifest both of its names, and take away the one that no runtime opens; what was done.

    mlc_llm also writes tensor-cache-b16.json, for tensors that it keeps as bfloat16: a library compiled
    for float32 would refuse its parameters.
    """
    done = []
    new, old = folder / MANIFEST_NAME, folder / OLD_MANIFEST_NAME
    if new.is_file() and not old.is_file():
        shutil.copyfile(new, old)
        done.append(f"{old.name}: a copy of {new.name}, for runtimes from before September 2025")
    elif old.is_file() and not new.is_file():
        shutil.copyfile(old, new)
        done.append(f"{new.name}: a copy of {old.name}, for runtimes from September 2025 on")
    for name in ("tensor-cache-b16.json", "ndarray-cache-b16.json"):
        if (folder / name).is_file():
            (folder / name).unlink()
            done.append(f"{name}: taken away, no runtime opens it")
    return done


def tokenizer(folder: Path, model: ModelFolder) -> list[str]:
    """Write tokenizer.json as transformers loads it where mlc_llm copied one that means something else.

    `model` is the source. Raises UsageError for a tokenizer that cannot be used.
    """
    name = "tokenizer.json"
    # Of a model without one mlc_llm makes it, by transformers.
    if not (model.path / name).is_file() or not (changes := model.tokenizer_changes):
        return []
    (folder / name).write_bytes(model.exported(name))
    return list(changes)


def configuration(folder: Path, *, rolling: bool, choice: Choice | None) -> list[str]:
    """Correct mlc-chat-config.json where WebLLM would refuse it; what was changed.

    `rolling`: a rolling cache was asked for, so of two windows the sliding one stays. `choice` is the
    conversation that takes the place of mlc_llm's, None where that was asked for by name.

    Raises ValueError, KeyError or TypeError for a file that is no configuration at all.
    """
    path = folder / CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8"))
    done = [*_windows(config, rolling=rolling), *_fields(config)]
    if choice is not None:
        before = config["conv_template"]
        name = before["name"] if isinstance(before, dict) else before
        config["conv_template"] = choice.conversation.to_json()
        done.append(
            f"conv_template: {choice.conversation.name} instead of {name}, from the model's own chat template"
            if choice.cases
            else f"conv_template: {choice.conversation.name} instead of {name}"
        )
    if done:
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return done


def _windows(config: dict[str, Any], *, rolling: bool) -> Iterator[str]:
    """WebLLM takes exactly one window (WindowSizeConfigurationError), mlc_llm writes both for Gemma 3."""
    context, sliding = config["context_window_size"], config.get("sliding_window_size", -1)
    if context > 0 and sliding > 0:
        name, value = ("context_window_size", context) if rolling else ("sliding_window_size", sliding)
        config[name] = -1
        yield f"{name}: -1 instead of {value}, as WebLLM takes one of the two windows"


def _fields(config: dict[str, Any]) -> Iterator[str]:
    for name, value in _NEEDED.items():
        if config.get(name) is None:
            config[name] = value
            yield f"{name}: {value}, which was missing"
