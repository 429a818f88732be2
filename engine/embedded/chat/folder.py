"""What a model folder says about text: tokenizer, special tokens, chat template, generation settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine.embedded.chat.tokenizer_file import TokenizerFile, named_tokens, tokenizer_of
from engine.errors import UsageError
from engine.model.files import no_tokenizer_json, read_json_object

_END_OF_TEXT = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
# What transformers' classes call their tokens where no file says it, as in the first repositories of GPT-2.
_CLASS_TOKENS = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "GemmaTokenizer": {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    },
    "Qwen2Tokenizer": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "GPT2Tokenizer": _END_OF_TEXT,
    "GPTNeoXTokenizer": _END_OF_TEXT,
    "CodeGenTokenizer": _END_OF_TEXT,
}
_CLASSES = {"gpt2": "GPT2Tokenizer"}
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_json(path: Path, *, required: bool = False) -> dict[str, Any]:
    """The JSON object in `path`; empty where the file is absent and not `required`.

    Raises UsageError when a required file is missing and when a file is no JSON object, StageError for
    what cannot be read.
    """
    if not path.is_file():
        if required:
            raise UsageError(
                f"{path.parent} has no {path.name}.",
                remedy="Give the folder of a Hugging Face model, with config.json and its tokenizer files.",
            )
        return {}
    return read_json_object(path)


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face model folder, read on demand."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise UsageError(
                f"{self.path} is not a folder.",
                remedy="Give the folder of a Hugging Face model, with config.json and its tokenizer files.",
            )

    def read_bytes(self, name: str) -> bytes:
        """The content of one file; raises UsageError where it cannot be read."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UsageError(
                f"{self.path / name} cannot be read: {error.strerror or error}",
                remedy="Allow reading it, or download it again.",
            ) from error

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, as it is written."""
        return read_json(self.path / "config.json", required=True)

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """generation_config.json, empty where there is none."""
        return read_json(self.path / "generation_config.json")

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json, empty where there is none."""
        return read_json(self.path / "tokenizer_config.json")

    @property
    def tokenizer_json(self) -> dict[str, Any]:
        """tokenizer.json as it is exported; raises UsageError where it is absent or names a token twice."""
        return self._tokenizer_file.content

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of `tokenizer_json`."""
        return self._tokenizer_file.tokenizer

    @property
    def tokenizer_changes(self) -> tuple[str, ...]:
        """How `tokenizer_json` differs from the file, in words; empty where it is the same."""
        return self._tokenizer_file.changes

    def exported(self, name: str) -> bytes:
        """The content of a tokenizer file as it is exported."""
        if name == "tokenizer.json" and self.tokenizer_changes:
            return (json.dumps(self.tokenizer_json, indent=2, ensure_ascii=False) + "\n").encode()
        return self.read_bytes(name)

    @cached_property
    def _tokenizer_file(self) -> TokenizerFile:
        path = self.path / "tokenizer.json"
        if not path.is_file():
            has_sentencepiece = (self.path / "tokenizer.model").is_file()
            raise no_tokenizer_json(str(self.path), has_sentencepiece=has_sentencepiece)
        found = read_json(path)
        try:
            contents = [str(token["content"]) for token in found.get("added_tokens") or ()]
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{path} has added_tokens that are no tokens.", remedy="Download the file again."
            ) from error
        if twice := {content for content in contents if contents.count(content) > 1}:
            raise UsageError(
                f"{path} lists the added token {min(twice)!r} more than once.",
                why="A tokenizer with a doubled token gives wrong ids at run time.",
                remedy="Remove the second entry from added_tokens.",
            )
        named = named_tokens(self.tokenizer_config, read_json(self.path / "added_tokens.json"))
        return tokenizer_of(path, found, named, self.chat_template or "")

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Named special tokens (bos_token, eos_token, ...) as the chat template sees them.

        As in transformers: special_tokens_map.json counts, and then first, where tokenizer_config.json has no
        `added_tokens_decoder`; what neither states is the default of the tokenizer's class.
        """
        stated = dict(self.tokenizer_config)
        if "added_tokens_decoder" not in stated:
            stated |= read_json(self.path / "special_tokens_map.json")
        defaults = _CLASS_TOKENS.get(self._tokenizer_class, {})
        found = {name: _content(stated.get(name, defaults.get(name))) for name in _NAMED_TOKENS}
        return {name: token for name, token in found.items() if token}

    @property
    def _tokenizer_class(self) -> str:
        """The tokenizer's class without "Fast"; that of the model type where no file names it."""
        named = self.tokenizer_config.get("tokenizer_class") or _CLASSES.get(
            self.config.get("model_type", "")
        )
        return str(named or "").removesuffix("Fast")

    @cached_property
    def chat_template(self) -> str | None:
        """The source of the chat template, None where the model has none.

        A chat_template.jinja file wins over tokenizer_config.json, as in transformers; of several
        named templates it is the one called "default", and none where there is no such one.
        """
        file = self.path / "chat_template.jinja"
        if file.is_file():
            try:
                return file.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"{file} cannot be read: {error}", remedy="Download the file again."
                ) from error
        for stated in self._stated_templates:
            if isinstance(stated, str) and stated:
                return stated
        return self.named_templates.get("default")

    @property
    def named_templates(self) -> dict[str, str]:
        """Chat templates by name, where a file lists several; empty otherwise."""
        for stated in self._stated_templates:
            if isinstance(stated, list):
                listed = [item for item in stated if isinstance(item, dict)]
                return {str(item.get("name")): str(item.get("template")) for item in listed}
        return {}

    @property
    def _stated_templates(self) -> tuple[Any, Any]:
        """What files say is the chat template, the first one first."""
        older = read_json(self.path / "chat_template.json").get("chat_template")
        return self.tokenizer_config.get("chat_template"), older

    @cached_property
    def added_tokens(self) -> dict[str, int]:
        """Every token that the tokenizer matches whole, before it splits text: content to id."""
        return {token["content"]: int(token["id"]) for token in self.tokenizer_json.get("added_tokens") or ()}


def _content(token: Any) -> str:
    """A special token, which may be written as a string or as {"content": ...}."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else ""
