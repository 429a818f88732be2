"""A checkpoint to convert: its decoder's parameters, matched with its tensors, in storage order."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine import narrate
from engine.catalog import Quantization
from engine.embedded import awq
from engine.embedded.families.base import JSON
from engine.embedded.families.registry import family_of
from engine.embedded.leftover import IGNORED, check_tied_head, left_over, shares_head
from engine.embedded.locate import located
from engine.embedded.spec import DecoderSpec, Parameter
from engine.errors import UsageError
from engine.model.config import normalise
from engine.model.files import MODULES_FILE, disk_errors_told, embeds_text, read_json_object
from engine.model.lora import MergedSource, open_adapter
from engine.model.rearranged import Order, RearrangedSource
from engine.model.tensors import SourceFormat, TensorSource, open_tensors

_HEAD = "lm_head.weight"
_MOST_LAYERS = 10_000  # fifty times as many as any model has


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """`parameters` in the order in which they are stored; `parameters_read` as mlc_llm counts them."""

    tensors: TensorSource
    parameters: tuple[Parameter, ...]
    parameters_read: int


def open_checkpoint(
    config: Path,
    source: Path | None = None,
    model_type: str = "auto",
    *,
    quantization: Quantization,
    source_format: SourceFormat = "auto",
    lora_adapter: Path | None = None,
) -> Checkpoint:
    """The checkpoint that `config` (folder or config.json) describes, with weights in `source`.

    The PEFT adapter in the folder `lora_adapter` is merged into them.
    Raises UsageError for a config that describes no supported model or one that cannot become
    `quantization`, for tensors that are missing, of another shape or of an unsupported dtype, and for
    an adapter that does not fit. Narrates tensors that nothing uses.
    """
    with disk_errors_told(config):
        config_path = config if config.is_file() else config / "config.json"
        if not config_path.is_file():
            missing = config if not config.exists() else config_path
            raise UsageError(
                f"There is no {missing}.",
                remedy="Name the folder of a Hugging Face model: config.json and its weights.",
            )
    if config_path.with_name(MODULES_FILE).is_file():
        raise embeds_text(str(config_path.parent))
    hf_config = normalise(read_json_object(config_path))
    awq.check_pair(awq.method(hf_config), quantization)
    spec, parameters = decoder_of(hf_config, model_type)
    awq.check(hf_config, spec.model_type)
    if quantization.from_awq:
        parameters = awq.packed(parameters)
    tensors = open_tensors(source or config_path.parent, source_format)
    parameters = located(parameters, tensors)
    if unused := check_tensors(parameters, tensors, spec):
        shown = ", ".join(unused[:5]) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
        narrate.say(f"warning: {len(unused)} tensors of the source have no place in this model: {shown}.")
    check_tied_head(parameters, tensors, spec)
    if lora_adapter is not None:
        tensors = merged = with_adapter(parameters, tensors, spec, lora_adapter)
        narrate.say(f"Merging the adapter {lora_adapter} into {len(merged.changed)} tensors.")
    if orders := _orders(parameters):
        tensors = RearrangedSource(tensors, orders)
    ordered = storage_order(parameters, tensors)
    return Checkpoint(tensors=tensors, parameters=ordered, parameters_read=_parameters_read(ordered, tensors))


def _orders(parameters: Iterable[Parameter]) -> dict[str, Order]:
    """The source tensors whose elements have another order than those of the export."""
    orders: dict[str, Order] = {}
    for parameter in parameters:
        for name in parameter.sources:
            if parameter.transpose:
                orders[name] = "transposed"
            elif parameter.interleaved_heads:
                orders[name] = parameter.interleaved_heads
    return orders


def storage_order(parameters: Iterable[Parameter], tensors: TensorSource) -> tuple[Parameter, ...]:
    """`parameters` in the order in which mlc_llm writes them.

    Files come in the order in which the source first names them, within a file its tensors as the
    source lists them, and each tensor brings the parameters that it is a part of and that have not
    come yet. (The source's list is the index's weight_map, or a single file's tensors by offset.)
    Of the two that GPT-2's embedding is, the head comes first.
    """
    by_source: dict[str, list[Parameter]] = {}
    for parameter in sorted(parameters, key=lambda p: p.kind != "head"):
        for name in parameter.sources:
            by_source.setdefault(name, []).append(parameter)
    by_file: dict[Path, list[str]] = {}
    for name in tensors.names:
        by_file.setdefault(tensors.info(name).file, []).append(name)
    order: dict[Parameter, None] = {}
    for names in by_file.values():
        for name in names:
            order.update(dict.fromkeys(by_source.get(name, ())))
    return tuple(order)


def _parameters_read(order: Iterable[Parameter], tensors: TensorSource) -> int:
    """The elements of every file mlc_llm loads, again for each time that it loads one again.

    It keeps only the files of the current parameter once a new one is needed. BitsPerParam is over
    this number, so a model whose joined weights lie in different files shows fewer bits than it has.
    """
    held: set[Path] = set()
    count = 0
    for parameter in order:
        needed = {tensors.info(name).file for name in parameter.sources}
        if needed - held:
            count += sum(
                info.size
                for file in needed - held
                for info in tensors.files[file]
                if not info.name.endswith(IGNORED)
            )
            held = needed
    return count


def decoder_of(config: JSON, model_type: str = "auto") -> tuple[DecoderSpec, tuple[Parameter, ...]]:
    """The decoder that a normalised config.json describes, and its parameters in decoder order.

    Raises UsageError for a model of no supported family, and for a config.json that lacks a key or
    has values that describe no decoder.
    """
    family = family_of(config, model_type)
    try:
        _check_layers(config)
        spec = family.spec(family.model_config(config))
        _check_sizes(spec)
        return spec, family.parameters(spec)
    except KeyError as error:
        raise UsageError(
            f"config.json has no {error.args[0]}, which a {family.model_type} model needs.",
            remedy="Download config.json again, or name the right --model-type.",
        ) from error
    except (TypeError, ValueError, ArithmeticError, AttributeError, IndexError) as error:
        raise UsageError(
            f"config.json does not describe a {family.model_type} model: {error}.",
            remedy="Download config.json again, or name the right --model-type.",
        ) from error


def longest_context(config: JSON, model_type: str = "auto") -> int:
    """The tokens that the model of a normalised config.json, which `decoder_of` accepts, was made for."""
    return int(family_of(config, model_type).model_config(config)["context_window_size"])


def _check_layers(config: JSON) -> None:
    """Raise ValueError for more layers than any model has, before a list of them fills the memory."""
    for name in ("num_hidden_layers", "n_layer"):
        if isinstance(count := config.get(name), int | float) and count > _MOST_LAYERS:
            raise ValueError(f"{name} = {count} is more than {_MOST_LAYERS}")


def _check_sizes(spec: DecoderSpec) -> None:
    """Raise ValueError for sizes that no decoder has."""
    sizes = {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": spec.num_attention_heads,
        "num_key_value_heads": spec.num_key_value_heads,
        "head_dim": spec.head_dim,
    }
    for name, value in sizes.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} = {value!r} is no whole number above 0")
    for layer in spec.layers:
        if layer.window is not None and (type(layer.window) is not int or layer.window < 1):
            raise ValueError(f"the window of its attention is {layer.window!r}, no whole number above 0")
        _check_number("rope_theta", layer.rope_theta)
    for name in ("norm_eps", "attention_scale", "embedding_scale", "attention_softcap", "logit_softcap"):
        _check_number(name, getattr(spec, name))
    if not 0 <= spec.rotary_dim <= spec.head_dim or spec.rotary_dim % 2:
        raise ValueError(
            f"{spec.rotary_dim} elements of a head of {spec.head_dim} cannot be rotated in pairs"
        )
    if spec.num_attention_heads % spec.num_key_value_heads:
        raise ValueError(
            f"num_attention_heads = {spec.num_attention_heads} is no multiple of "
            f"num_key_value_heads = {spec.num_key_value_heads}"
        )


def _check_number(name: str, value: object) -> None:
    if value is None and name.endswith("softcap"):
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ValueError(f"{name} = {value!r} is no number above 0")


def check_tensors(
    parameters: tuple[Parameter, ...], tensors: TensorSource, spec: DecoderSpec
) -> tuple[str, ...]:
    """The names in `tensors` that `parameters` make no use of.

    Raises UsageError for a tensor that is missing, has another shape or a dtype that is not read, and for
    tensors of the layers that nothing takes.
    """
    if missing := [name for p in parameters for name in p.sources if name not in tensors]:
        raise _missing(missing, tensors, spec)
    for parameter in parameters:
        infos = [tensors.info(name) for name in parameter.sources]
        for info in infos:
            info.check_dtype(integers=parameter.kind == "integers")
        shapes = [info.shape[::-1] if parameter.transpose else info.shape for info in infos]
        if _joined_shape(shapes, parameter.axis) != parameter.shape:
            raise _wrong_shape(parameter, tensors)
    return left_over(parameters, tensors, spec)


def _joined_shape(shapes: list[tuple[int, ...]], axis: int) -> tuple[int, ...] | None:
    """The shape of tensors of `shapes` joined along `axis`, None where they cannot be."""
    around = {(shape[:axis], shape[axis + 1 :]) for shape in shapes if len(shape) > axis}
    if len(around) != 1 or any(len(shape) <= axis for shape in shapes):
        return None
    (before, behind) = around.pop()
    return (*before, sum(shape[axis] for shape in shapes), *behind)


def with_adapter(
    parameters: tuple[Parameter, ...], tensors: TensorSource, spec: DecoderSpec, folder: Path
) -> MergedSource:
    """`tensors` with the PEFT adapter in `folder` merged.

    Raises UsageError for an adapter that does not fit, also for one of the embedding alone where the
    head shares it: merging would change both.
    """
    if any(parameter.kind == "integers" for parameter in parameters):
        raise awq.no_adapter()
    adapter = open_adapter(folder)
    merged = adapter.merged_into(tensors)
    embedding = {name for p in parameters if p.kind == "embedding" for name in p.sources}
    if shares_head(parameters, spec) and not adapter.ties_weights and embedding.intersection(merged.changed):
        raise UsageError(
            f"The adapter {folder} changes the embedding, which is also the output head of this model.",
            why="It was trained with a head that stays as it is; merged, it would change both.",
            remedy="Untie the model first (save it with tie_word_embeddings = false and both matrices), or "
            "train the adapter with ensure_weight_tying = true.",
        )
    return merged


def _missing(missing: list[str], tensors: TensorSource, spec: DecoderSpec) -> UsageError:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    what = f"The weights have no tensor {missing[0]}{more} that a {spec.model_type} model needs."
    if any("lora_" in name for name in tensors.names):
        return UsageError(
            what,
            why="They are those of a LoRA adapter, not of a model.",
            remedy="Name the model that it was trained on as the source, and this folder as its adapter: "
            "--lora-adapter.",
        )
    if any(name.endswith((".qweight", ".weight_packed", ".weight_scale")) for name in tensors.names):
        return UsageError(
            what,
            why="They are quantized already, though config.json has no quantization_config.",
            remedy="Start from the model's original checkpoint in BF16, F16 or F32.",
        )
    if missing == [_HEAD]:
        return UsageError(
            what,
            why="By config.json the head is not shared with the embedding (tie_word_embeddings is false or "
            "left out). Weights without one are those of a model that embeds text, or not all of them.",
            remedy="Take all weights of a model that writes text. Only if this one was trained with a shared "
            "embedding, set tie_word_embeddings to true in config.json.",
        )
    other = next((name for name in tensors.names if name.endswith(f".{missing[0]}")), None)
    first = f"{other}, for example" if other else ", ".join(tensors.names[:3]) or "nothing"
    return UsageError(
        what,
        why=f"The weights hold {first}; config.json and weights may be of different models.",
        remedy="Check --model-type, and that config.json and weights are of the same model.",
    )


def _wrong_shape(parameter: Parameter, tensors: TensorSource) -> UsageError:
    found = ", ".join(f"{name} {list(tensors.info(name).shape)}" for name in parameter.sources)
    joined = " together" if len(parameter.sources) > 1 else ""
    rows_alone = [tensors.info(name).shape[1:] for name in parameter.sources] == [parameter.shape[1:]]
    resized = parameter.kind in ("embedding", "head") and rows_alone
    return UsageError(
        f"Wrong shape: found {found}; config.json asks for {list(parameter.shape)}{joined}.",
        why="The vocabulary was resized without config.json, or config.json is another model's."
        if resized
        else "config.json and weights are of different models.",
        remedy="Set vocab_size in config.json to the number of rows found, if the tokenizer agrees."
        if resized
        else "Take config.json and weights from the same model.",
    )
