"""gen_config: mlc-chat-config.json and the tokenizer files of an export.

Fields and their sources are those of mlc_llm's `interface/gen_config.py`; the conversation template
comes from the model's own chat template (engine/embedded/chat). The compile stage reads nothing but
the file written here: `model_config` holds all that a DecoderSpec needs.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import narrate
from engine.catalog import QUANTIZATIONS, quantization_named
from engine.embedded import awq
from engine.embedded.chat.check import KEPT_CACHE, Case, messages
from engine.embedded.chat.choose import Choice, choose_conversation
from engine.embedded.chat.folder import ModelFolder
from engine.embedded.chat.named import AUTO
from engine.embedded.chat.tokenizer_info import tokenizer_info
from engine.embedded.chat.tokens import bos_token, is_token
from engine.embedded.families.base import Family
from engine.embedded.families.common import check_context
from engine.embedded.families.registry import FAMILIES, family_of
from engine.embedded.sizes import Sizes, apply_sizes
from engine.embedded.spec import DecoderSpec
from engine.errors import StageError, UsageError
from engine.layout import CONFIG_NAME
from engine.model.config import normalise
from engine.plan import DEFAULT_CONTEXT, DEFAULT_PREFILL

TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
)
"""What mlc_llm copies, in its order."""

_SAMPLING: dict[str, tuple[float, Callable[[float], bool]]] = {
    "temperature": (1.0, lambda value: value >= 0),
    "presence_penalty": (0.0, lambda value: -2 <= value <= 2),
    "frequency_penalty": (0.0, lambda value: -2 <= value <= 2),
    "repetition_penalty": (1.0, lambda value: value > 0),
    "top_p": (1.0, lambda value: 0 < value <= 1),
}
"""Sampling defaults: mlc_llm's value where the model states none, and what WebLLM accepts."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What was written: the config's path and content, and what is to be known about it.

    `cases` say for which chats the conversation template gives exactly the model's own prompt;
    empty for a model without a chat template. `files` are all files written, by name.
    """

    path: Path
    config: dict[str, Any]
    files: tuple[str, ...]
    cases: tuple[Case, ...]
    trimmed_roles: tuple[str, ...]
    warnings: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `mlc_llm gen_config`."""
    parser.add_argument("config", type=Path, help="folder of the Hugging Face model, or its config.json")
    parser.add_argument("--quantization", required=True, help=f"one of {', '.join(QUANTIZATIONS)}")
    parser.add_argument("--model-type", default="auto", help="auto, or one of " + ", ".join(FAMILIES))
    parser.add_argument(
        "--conv-template",
        default=AUTO,
        help="auto: from the model's own chat template; none: plain text; or a template of mlc_llm by name",
    )
    for name, text in (
        (
            "context-window-size",
            f"tokens of context (default: the model's maximum, at most {DEFAULT_CONTEXT})",
        ),
        (
            "sliding-window-size",
            "tokens of a rolling cache in place of the context, for families that have one; -1: none, the "
            "windows of layers come from config.json",
        ),
        ("prefill-chunk-size", f"tokens of a prefill chunk (default: at most {DEFAULT_PREFILL})"),
        ("attention-sink-size", "first tokens that a rolling cache keeps (default: the family's, mostly 4)"),
        ("tensor-parallel-shards", "only 1"),
        ("pipeline-parallel-stages", "only 1"),
    ):
        parser.add_argument(f"--{name}", type=int, default=None, help=text)
    parser.add_argument("--disaggregation", type=_boolean, default=None, help="only false")
    parser.add_argument("--max-batch-size", type=int, default=1, help="sequences at a time (default: 1)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the export")


def run(arguments: argparse.Namespace) -> Generated:
    """Run the stage for parsed `arguments` and narrate what was found."""
    sizes = Sizes(**{name: getattr(arguments, name) for name in Sizes.__dataclass_fields__})
    generated = generate(
        arguments.config,
        arguments.output,
        quantization=arguments.quantization,
        conv_template=arguments.conv_template,
        model_type=arguments.model_type,
        sizes=sizes,
    )
    told = told_of(generated.config["conv_template"]["name"], generated)
    narrate.say(f"Wrote {generated.path}")
    narrate.result(told)
    return generated


def told_of(template: str, found: Generated | Choice) -> dict[str, str]:
    """Narrate what is known about the conversation template; the same for the stage's result."""
    narrate.say(f"Conversation template {template}: {_exactness(found)}")
    for warning in found.warnings:
        narrate.say(f"warning: {warning}")
    for case in found.cases:
        if case.name == KEPT_CACHE and case.supported and not case.exact:
            narrate.say(f"note: {case.name}: {case.difference}; a chat that is reset has it")
    trimmed = ", ".join(found.trimmed_roles)
    told = {case.name: "exact" if case.exact else case.difference for case in found.cases}
    return {"conv_template": template, "trimmed_roles": trimmed} | told


def generate(
    source: Path,
    output: Path,
    *,
    quantization: str,
    conv_template: str = AUTO,
    model_type: str = "auto",
    sizes: Sizes | None = None,
) -> Generated:
    """Write mlc-chat-config.json and the tokenizer files of the model in `source` to `output`.

    Raises UsageError for a request or a model folder that cannot be served, StageError when the
    files cannot be written. Nothing is written before all of it is known to be right.
    """
    sizes = sizes or Sizes()
    stored_as = quantization_named(quantization)
    folder = ModelFolder(source.parent if source.name == "config.json" and source.is_file() else source)
    hf_config = normalise(folder.config)
    awq.check_pair(awq.method(hf_config), stored_as)
    family = family_of(hf_config, model_type)
    awq.check(hf_config, family.model_type)
    model, spec = _described(folder, family, hf_config)
    warnings = apply_sizes(model, sizes, family.can_roll)
    check_context(spec, model["context_window_size"])
    rolling = sizes.sliding_window_size or -1
    choice = choose_conversation(folder, conv_template)
    warnings += folder.tokenizer_changes
    _check_rows(folder, choice, model["vocab_size"])
    active = folder.tokenizer.get_vocab_size(with_added_tokens=True)
    if active > model["vocab_size"]:
        warnings.append(
            f"the tokenizer has {active} tokens, the model only {model['vocab_size']}: "
            "the ids above have no weights"
        )
    names = tuple(name for name in TOKENIZER_FILES if (folder.path / name).is_file())
    config: dict[str, Any] = {
        "version": "0.1.0",
        "model_type": family.model_type,
        "quantization": stored_as.name,
        "model_config": model,
        "vocab_size": model["vocab_size"],
        "context_window_size": model["context_window_size"],
        "sliding_window_size": rolling,
        "prefill_chunk_size": model["prefill_chunk_size"],
        "attention_sink_size": model["attention_sink_size"] if rolling > 0 else -1,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "active_vocab_size": active,
        **_sampling(folder, warnings),
        "tokenizer_files": list(names),
        "tokenizer_info": tokenizer_info(folder.tokenizer_json),
        "conv_template": choice.conversation.to_json(),
        **_token_ids(folder, choice, model["vocab_size"], warnings),
        "model_task": "chat",
        "embedding_metadata": None,
    }
    files = {name: folder.exported(name) for name in names}
    files[CONFIG_NAME] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    _write(output, files)
    return Generated(
        path=output / CONFIG_NAME,
        config=config,
        files=tuple(files),
        cases=choice.cases,
        trimmed_roles=choice.trimmed_roles,
        warnings=(*warnings, *choice.warnings),
    )


def _described(
    folder: ModelFolder, family: Family, hf_config: Mapping[str, Any]
) -> tuple[dict[str, Any], DecoderSpec]:
    """The model_config of `hf_config`, and its decoder. Raises UsageError where a field does not fit."""
    try:
        model = family.model_config(hf_config)
        spec = family.spec(model)
        for size in ("vocab_size", "context_window_size"):
            model[size] = int(model[size])
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UsageError(
            f"{folder.path / 'config.json'} does not describe a {family.model_type} model: {error}",
            why="A field that every such model has is missing or of the wrong kind.",
            remedy="Download config.json again, or name another --model-type.",
        ) from error
    return model, spec


def _check_rows(folder: ModelFolder, choice: Choice, vocab_size: int) -> None:
    """Raise UsageError for a prompt with tokens that the model has no rows for."""
    fed = choice.conversation.token_ids(messages(("a", "a", "a"), system=True), folder.tokenizer)
    if beyond := sorted({number for number in fed if number >= vocab_size}):
        raise UsageError(
            f"Every prompt has the token {folder.tokenizer.id_to_token(beyond[0])!r} of id {beyond[0]}, "
            f"and the model has {vocab_size} tokens.",
            why="The tokenizer was extended, the model was not: there is no embedding of such a token.",
            remedy="Take the tokenizer files and the weights from the same model.",
        )


def _stated(folder: ModelFolder, key: str) -> Any:
    """What generation_config.json says of `key`, else config.json."""
    found = folder.generation_config.get(key)
    return folder.config.get(key) if found is None else found


def _sampling(folder: ModelFolder, warnings: list[str]) -> dict[str, float]:
    out = {}
    for key, (default, valid) in _SAMPLING.items():
        value = _stated(folder, key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and valid(value)):
            warnings.append(
                f"generation_config.json says {key} = {value!r}, which cannot be: {default} instead"
            )
            value = None
        out[key] = default if value is None else float(value)
    return out


def _token_ids(
    folder: ModelFolder, choice: Choice, vocab_size: int, warnings: list[str]
) -> Mapping[str, Any]:
    """The ids mlc_llm keeps for the record, as the files state them; the tokenizer's where none does.

    What is stated and is no token, as the -1 of some older models, counts as not stated.
    """

    def stated(key: str) -> Any:
        value = _stated(folder, key)
        listed = value if isinstance(value, list) else [value]
        known = [found for found in listed if is_token(folder, found) and found < vocab_size]
        if value is not None and len(known) < len(listed):
            warnings.append(f"{key} = {value!r} names what is no token of the model: it is left out")
        return (known or None) if isinstance(value, list) else next(iter(known), None)

    pad, bos, eos = (stated(f"{name}_token_id") for name in ("pad", "bos", "eos"))
    own = bos_token(folder)
    stops = list(choice.conversation.stop_token_ids)
    return {
        "pad_token_id": 0 if pad is None else pad,
        "bos_token_id": (own[1] if own else None) if bos is None else bos,
        "eos_token_id": (stops or None) if eos is None else eos,
    }


def _exactness(generated: Generated | Choice) -> str:
    if not generated.cases:
        return "not compared with a chat template of the model"
    supported = [case for case in generated.cases if case.supported and case.name != KEPT_CACHE]
    exact = [case.name for case in supported if case.exact]
    told = f"the model's own prompt in {len(exact)} of {len(supported)} cases"
    if generated.trimmed_roles:
        told += (
            f" (its template trims what {', '.join(generated.trimmed_roles)} say; WebLLM sends it as it is)"
        )
    return told


def _write(output: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` into `output`, each whole or not at all, the config last."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            temporary = output / f".{name}.{os.getpid()}"
            try:
                temporary.write_bytes(content)
                temporary.replace(output / name)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StageError(
            f"Cannot write to {output}: {error.strerror or error}",
            remedy="Choose another output folder, or make room and allow writing there.",
        ) from error


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None
