"""What a model folder holds, read from config.json, the safetensors headers and the tokenizer files."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from engine.embedded import awq
from engine.embedded.source import check_tensors, decoder_of, storage_order, with_adapter
from engine.embedded.spec import DecoderSpec, Parameter
from engine.errors import UsageError, WizardError
from engine.model.config import normalise
from engine.model.files import read_json_object
from engine.model.tensor_info import TensorInfo
from engine.model.tensors import TensorSource, open_tensors

CONFIG_FILE = "config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
"""Either is enough for the MLC runtimes; WebLLM prefers the first."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model folder that can be read; bytes are those of the source, sizes are in tokens.

    `tensors` is what the headers say, `parameters` what the export will store and in which order,
    `dtype` the one that most bytes have ("BF16"). `spec` is None, with `unsupported` saying why,
    where the embedded compiler cannot follow config.json. `quant_method` is that of a model that is
    quantized already; for an AWQ checkpoint `packed` is what q4f16_autoawq stores of it, in order.
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
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    tokenizer_files: tuple[str, ...]
    tokenizer_bytes: int
    has_chat_template: bool
    unsupported: UsageError | None = field(default=None, compare=False)
    quant_method: str = ""
    packed: tuple[Parameter, ...] = ()

    @property
    def source_bytes(self) -> int:
        """The bytes of all source tensors."""
        return sum(t.nbytes for t in self.tensors.values())

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
        return max((t.nbytes for t in self.tensors.values()), default=0)

    def decoder(self) -> DecoderSpec:
        """The DecoderSpec; raises the UsageError that says why there is none."""
        if self.spec is None:
            assert self.unsupported is not None
            raise self.unsupported
        return self.spec


def read(folder: Path, model_type: str = "auto", *, lora_adapter: Path | None = None) -> ModelFacts:
    """The facts of a local model folder, with the PEFT adapter in `lora_adapter` merged.

    Raises UsageError for what makes the folder unusable whatever compiles it: missing or malformed
    files, no weights, no tokenizer, tensors that do not fit config.json, an adapter that does not
    fit either. A config.json that the embedded compiler cannot follow is no error here: see
    `ModelFacts.decoder`.
    """
    config = normalise(_config(folder))
    method = awq.method(config)
    packed: tuple[Parameter, ...] = ()
    source = open_tensors(folder)
    spec, parameters, unsupported = _decoder(config, model_type)
    if spec is not None:
        packed = awq.packed(parameters) if method == "awq" else ()
        check_tensors(packed or parameters, source, spec)
        if lora_adapter is not None:
            source = with_adapter(packed or parameters, source, spec, lora_adapter)
        packed = storage_order(packed, source)
        parameters = parameters if packed else storage_order(parameters, source)
    tokenizer = tuple(name for name in TOKENIZER_FILES if (folder / name).is_file())
    if not tokenizer:
        raise _no_tokenizer(folder)
    generation = _optional(folder / "generation_config.json")
    # Multimodal configurations keep the language model's settings in text_config.
    text = {**config, **_mapping(config.get("text_config"))}
    return ModelFacts(
        folder=folder,
        model_type=spec.model_type if spec else str(config.get("model_type", "")),
        architectures=tuple(config.get("architectures") or ()),
        spec=spec,
        parameters=parameters,
        tensors={name: source.info(name) for name in source.names},
        dtype="AWQ" if method == "awq" else _main_dtype(source),
        max_context=_positive(text.get("max_position_embeddings")),
        window=_window(spec, text),
        eos_token_ids=_ids(generation.get("eos_token_id"), config.get("eos_token_id")),
        bos_token_id=next(iter(_ids(generation.get("bos_token_id"), config.get("bos_token_id"))), None),
        tokenizer_files=tokenizer,
        tokenizer_bytes=sum((folder / name).stat().st_size for name in tokenizer),
        has_chat_template=_has_chat_template(folder),
        unsupported=unsupported,
        quant_method=method,
        packed=packed,
    )


def _config(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        raise UsageError(
            f"{folder} is a file, not a model folder.", remedy=f"Name the folder that holds {CONFIG_FILE}."
        )
    if not folder.is_dir():
        raise UsageError(
            f"There is no folder {folder}.", remedy="Check model.source; a Hub id has the form owner/name."
        )
    if not (folder / CONFIG_FILE).is_file():
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


def _no_tokenizer(folder: Path) -> UsageError:
    old = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    return UsageError(
        f"{folder} has no tokenizer: neither {' nor '.join(TOKENIZER_FILES)}.",
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


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return bool(_optional(folder / "tokenizer_config.json").get("chat_template"))


def _optional(path: Path) -> dict[str, Any]:
    """The JSON object of a file that may be absent; a broken one is for the stage that needs it."""
    try:
        return read_json_object(path) if path.is_file() else {}
    except WizardError:
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _positive(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _ids(*values: object) -> tuple[int, ...]:
    """Token ids of fields that hold one, a list or none; each once, in order."""
    found = [v for value in values for v in (value if isinstance(value, list) else [value])]
    return tuple(dict.fromkeys(v for v in found if type(v) is int))
