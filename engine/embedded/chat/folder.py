"""What a model folder says about text: tokenizer, special tokens, chat template, generation settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine.errors import UsageError

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_json(path: Path, *, required: bool = False) -> dict[str, Any]:
    """The JSON object in `path`; empty where the file is absent and not `required`.

    Raises UsageError when a required file is missing and when a file is no JSON object.
    """
    if not path.is_file():
        if required:
            raise UsageError(
                f"{path.parent} has no {path.name}.",
                remedy="Give the folder of a Hugging Face model, with config.json and its tokenizer files.",
            )
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as JSON: {error}", remedy="Download the file again."
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object.", remedy="Download the file again.")
    return found


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

    @cached_property
    def tokenizer_json(self) -> dict[str, Any]:
        """tokenizer.json; raises UsageError where it is absent or names a token twice."""
        path = self.path / "tokenizer.json"
        if not path.is_file():
            has_model = (self.path / "tokenizer.model").is_file()
            raise UsageError(
                f"{self.path} has no tokenizer.json"
                + (", only a SentencePiece tokenizer.model." if has_model else "."),
                why="The runtimes tokenize with tokenizer.json, which holds the special tokens too.",
                remedy="With transformers installed: AutoTokenizer.from_pretrained(FOLDER, use_fast=True)"
                ".save_pretrained(FOLDER) writes it."
                if has_model
                else "Download tokenizer.json from the model's page into the folder.",
            )
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
        return found

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of tokenizer.json."""
        path = self.path / "tokenizer.json"
        _ = self.tokenizer_json
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the binding raises plain Exception
            raise UsageError(
                f"{path} cannot be loaded: {error}",
                remedy="Download the file again, or update the tokenizers package.",
            ) from error

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """Named special tokens (bos_token, eos_token, ...) as the chat template sees them."""
        stated = read_json(self.path / "special_tokens_map.json") | {
            key: value for key, value in self.tokenizer_config.items() if value is not None
        }
        found = {name: _content(stated.get(name)) for name in _NAMED_TOKENS}
        return {name: token for name, token in found.items() if token}

    @cached_property
    def chat_template(self) -> str | None:
        """The source of the chat template, None where the model has none.

        A chat_template.jinja file wins over tokenizer_config.json, as in transformers; of several
        named templates it is the one called "default".
        """
        file = self.path / "chat_template.jinja"
        if file.is_file():
            try:
                return file.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"{file} cannot be read: {error}", remedy="Download the file again."
                ) from error
        for stated in (
            self.tokenizer_config.get("chat_template"),
            read_json(self.path / "chat_template.json").get("chat_template"),
        ):
            if isinstance(stated, str) and stated:
                return stated
            listed = stated if isinstance(stated, list) else []
            named = {item.get("name"): item.get("template") for item in listed if isinstance(item, dict)}
            if named:
                return str(named.get("default", next(iter(named.values()))))
        return None

    @cached_property
    def added_tokens(self) -> dict[str, int]:
        """Every token that the tokenizer matches whole, before it splits text: content to id."""
        return {token["content"]: int(token["id"]) for token in self.tokenizer_json.get("added_tokens") or ()}


def _content(token: Any) -> str:
    """A special token, which may be written as a string or as {"content": ...}."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else ""
