"""What a model folder holds, read from config.json, the safetensors headers and the tokenizer files."""

import os
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from engine import paths
from engine.embedded import awq
from engine.embedded.families.registry import FAMILIES
from engine.embedded.locate import located
from engine.embedded.source import (
    check_tensors,
    decoder_of,
    longest_context,
    storage_order,
    with_adapter,
)
from engine.embedded.spec import DecoderSpec, Parameter
from engine.errors import UsageError, WizardError
from engine.model.config import normalise
from engine.model.files import MODULES_FILE, disk_errors_told, embeds_text, read_json_object
from engine.model.tensor_info import TensorInfo
from engine.model.tensors import TensorSource, open_tensors

CONFIG_FILE = "config.json"
CHAT_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
"""Either holds the template where tokenizer_config.json does not."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
"""Either is enough for the MLC runtimes; WebLLM prefers the first."""
_DTYPES: Mapping[object, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A model of the Hub of which only the small files are in the cache.

    `sizes` are the bytes of every file that an export reads, `download_bytes` of those that are not
    in the cache yet. `tensors` is what the headers of the weights say; None while or where unknown.
    """

    name: str
    commit: str
    sizes: Mapping[str, int]
    download_bytes: int
    tensors: TensorSource | None = None

    @property
    def weight_bytes(self) -> int:
        """The bytes of the files with the weights."""
        return sum(size for name, size in self.sizes.items() if name.endswith((".safetensors", ".bin")))


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model folder that can be read; bytes are those of the source, sizes are in tokens.

    `tensors` is what the headers say, `parameters` what the export will store and in which order,
    `dtype` the one that most bytes have ("BF16"). `spec` is None, with `unsupported` saying why,
    where the embedded compiler cannot follow config.json. `quant_method` is that of a model that is
    quantized already; for an AWQ checkpoint `packed` is what q4f16_autoawq stores of it, in order.
    `is_rope_nested`: config.json states its rope as transformers 5 does, in rope_parameters alone.
    `commit` is the one on the Hub, empty for a folder; `remote` tells what is still to be fetched, and is
    None where all of the model is here: where its headers are not known, `tensors` is empty and all
    sizes follow from config.json.
    """

    folder: Path
    model_type: str
    architectures: tuple[str, ...]
    spec: DecoderSpec | None
    parameters: tuple[Parameter, ...]
    tensors: Mapping[str, TensorInfo]
    dtype: str
    max_context: int | None
    window: int | None
    tokenizer_files: tuple[str, ...]
    tokenizer_bytes: int
    has_chat_template: bool
    unsupported: UsageError | None = field(default=None, compare=False)
    quant_method: str = ""
    packed: tuple[Parameter, ...] = ()
    is_rope_nested: bool = False
    commit: str = ""
    remote: Remote | None = None

    @property
    def source_bytes(self) -> int:
        """The bytes of all source tensors; of their files where the tensors are not known."""
        if self.remote is not None and not self.tensors:
            return self.remote.weight_bytes
        return sum(t.nbytes for t in self.tensors.values())

    @property
    def download_bytes(self) -> int:
        """The bytes that are still to be fetched from the Hub."""
        return self.remote.download_bytes if self.remote else 0

    @property
    def source_parameter_count(self) -> int:
        """The elements of all source tensors, whether exported or not."""
        return sum(t.size for t in self.tensors.values())

    @property
    def parameter_count(self) -> int:
        """The elements of what is exported; of the source where the model is not supported."""
        return sum(prod(p.shape) for p in self.parameters) or self.source_parameter_count

    @property
    def largest_tensor_bytes(self) -> int:
        """The bytes of the largest source tensor, which bounds the memory of a conversion."""
        if not self.tensors:
            width = 4 if self.dtype == "F32" else 2
            return width * max((prod(p.shape) for p in self.parameters), default=0)
        return max(t.nbytes for t in self.tensors.values())

    @property
    def can_roll(self) -> bool:
        """The model's KV cache may roll, in place of a context of fixed length."""
        return self.spec is not None and FAMILIES[self.spec.model_type].can_roll

    def decoder(self) -> DecoderSpec:
        """The DecoderSpec; raises the UsageError that says why there is none."""
        if self.spec is None:
            assert self.unsupported is not None
            raise self.unsupported
        return self.spec


def read(
    folder: Path,
    model_type: str = "auto",
    *,
    remote: Remote | None = None,
    commit: str = "",
    lora_adapter: Path | None = None,
) -> ModelFacts:
    """The facts of a local model folder, or of a `remote` model whose small files are in `folder`.

    `commit` says which of the Hub lies in `folder` where all of it does. The PEFT adapter in the folder
    `lora_adapter` is merged.

    Raises UsageError for what makes the folder unusable whatever compiles it: missing or malformed
    files, no weights, no tokenizer, tensors that do not fit config.json, an adapter that does not
    fit either. A config.json that the embedded compiler cannot follow is no error here: see
    `ModelFacts.decoder`.
    """
    stated = _config(folder)
    config = normalise(stated)
    method = awq.method(config)
    packed: tuple[Parameter, ...] = ()
    source = (remote.tensors or TensorSource({}, {})) if remote else open_tensors(folder)
    spec, parameters, unsupported = _decoder(config, model_type)
    parameters = located(parameters, source)
    if spec is not None and method == "awq":
        packed = awq.packed(parameters)
    if spec is not None and (remote is None or remote.tensors):
        check_tensors(packed or parameters, source, spec)
        if lora_adapter is not None:
            source = with_adapter(packed or parameters, source, spec, lora_adapter)
        packed = storage_order(packed, source)
        parameters = parameters if packed else storage_order(parameters, source)
    sizes = remote.sizes if remote else _sizes(folder)
    if MODULES_FILE in sizes:
        raise embeds_text(str(folder))
    tokenizer = tuple(name for name in TOKENIZER_FILES if name in sizes)
    if not tokenizer:
        raise _no_tokenizer(remote.name if remote else str(folder), sizes)
    # Multimodal configurations keep the language model's settings in text_config.
    text = {**config, **_mapping(config.get("text_config"))}
    return ModelFacts(
        folder=folder,
        model_type=spec.model_type if spec else str(config.get("model_type", "")),
        architectures=tuple(config.get("architectures") or ()),
        spec=spec,
        parameters=parameters,
        tensors={name: source.info(name) for name in source.names},
        dtype="AWQ" if method == "awq" else _main_dtype(source) or _DTYPES.get(text.get("torch_dtype"), ""),
        max_context=_positive(
            longest_context(config, model_type)
            if spec is not None
            else text.get("max_position_embeddings", text.get("n_positions"))
        ),
        window=_window(spec, text),
        tokenizer_files=tokenizer,
        tokenizer_bytes=sum(sizes[name] for name in tokenizer),
        has_chat_template=_has_chat_template(folder, sizes),
        unsupported=unsupported,
        quant_method=method,
        packed=packed,
        is_rope_nested=_is_rope_nested(stated),
        commit=remote.commit if remote else commit,
        remote=remote,
    )


def _config(folder: Path) -> dict[str, Any]:
    if paths.is_file(folder):
        raise UsageError(
            f"{folder} is a file, not a model folder.", remedy=f"Name the folder that holds {CONFIG_FILE}."
        )
    if not paths.is_folder(folder):
        raise UsageError(
            f"There is no folder {folder}.",
            remedy="Check the path; the id of a model on the Hub has the form owner/name.",
        )
    if not paths.is_file(folder / CONFIG_FILE):
        open_tensors(folder)  # says more where the folder holds an adapter, a GGUF file or nothing
        raise UsageError(
            f"{folder} has no {CONFIG_FILE}.",
            why="Without it the architecture of the weights is not known.",
            remedy="Download the whole model, for example with `hf download`.",
        )
    return read_json_object(folder / CONFIG_FILE)


def _decoder(
    config: Mapping[str, Any], model_type: str
) -> tuple[DecoderSpec | None, tuple[Parameter, ...], UsageError | None]:
    """Spec, parameters and no error; or nothing, and why the embedded compiler refuses."""
    try:
        spec, parameters = decoder_of(config, model_type)
        awq.check(config, spec.model_type)
        return spec, parameters, None
    except UsageError as error:
        return None, (), error


def _sizes(folder: Path) -> dict[str, int]:
    with disk_errors_told(folder), os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}


def _no_tokenizer(name: str, files: Container[str]) -> UsageError:
    old = "vocab.json" in files and "merges.txt" in files
    return UsageError(
        f"{name} has no tokenizer: neither {' nor '.join(TOKENIZER_FILES)}.",
        why="It has only the older vocab.json and merges.txt, which WebLLM cannot read." if old else "",
        remedy="Load it with transformers' AutoTokenizer and call save_pretrained on this folder."
        if old
        else "Copy tokenizer.json and tokenizer_config.json from the model this one was made from.",
    )


def _main_dtype(source: TensorSource) -> str:
    weight: Counter[str] = Counter()
    for name in source.names:
        weight[source.info(name).dtype] += source.info(name).nbytes
    return weight.most_common(1)[0][0] if weight else ""


def _window(spec: DecoderSpec | None, config: Mapping[str, Any]) -> int | None:
    """The smallest window of any layer, or what an unsupported model's config says."""
    if spec is not None:
        return min((layer.window for layer in spec.layers if layer.window), default=None)
    return _positive(config.get("sliding_window"))


def _has_chat_template(folder: Path, files: Container[str]) -> bool:
    if any(name in files for name in CHAT_TEMPLATE_FILES):
        return True
    return bool(_optional(folder / "tokenizer_config.json").get("chat_template"))


def _optional(path: Path) -> dict[str, Any]:
    """The JSON object of a file that may be absent; a broken one is for the stage that needs it."""
    try:
        return read_json_object(path) if path.is_file() else {}
    except WizardError:
        return {}


def _is_rope_nested(config: Mapping[str, Any]) -> bool:
    text = _mapping(config.get("text_config")) or config
    return "rope_parameters" in text and "rope_theta" not in text


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _positive(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
