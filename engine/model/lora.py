"""PEFT LoRA adapters, merged into the source tensors as they are read.

W + scale * B @ A, as PEFT's `merge_and_unload` computes it: product and sum in float32, the result
rounded to the dtype of W. Merging happens before tensors are joined and quantized, so an adapter of
q_proj alone is no special case.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, sqrt
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from engine import paths
from engine.errors import UsageError
from engine.model.files import DOWNLOAD, read_json_object, some
from engine.model.tensors import TensorSource, open_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""What PEFT calls the weights; the first that is there is read."""

# base_model.model.MODULE.lora_A.weight; an embedding's factors are parameters of their own. What PEFT did
# not save itself also has the adapter's name ("default") in it.
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.\w+)?(?<!\.bias)")
_WHOLE = re.compile(r"(?P<module>.+?)(\.base_layer|\.modules_to_save(\.\w+)?)?\.weight")
_PREFIX = "base_model.model."

# How factors may begin, besides the default; other ways change the base model before training, so that
# the factors alone do not tell the result.
_STARTS = ("gaussian", "eva", "orthogonal")
# Settings that concern training or finding modules, or are checked here one by one. Any other that is
# set may change what merging means.
_UNDERSTOOD = frozenset(
    {"peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "task_type"}
    | {"inference_mode", "r", "lora_alpha", "lora_dropout", "use_rslora", "fan_in_fan_out", "bias"}
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern"}
    | {"alpha_pattern", "init_lora_weights", "modules_to_save", "ensure_weight_tying", "megatron_core"}
    | {"eva_config", "loftq_config", "runtime_config", "qalora_group_size"}
)
_BY_PEFT = "Merge it with PEFT itself (`merge_and_unload()`, then `save_pretrained`), and export the result."


@dataclass(frozen=True, kw_only=True)
class _Delta:
    """What is added to one tensor: the names of its factors in the adapter, and how."""

    a: str
    b: str
    scale: float
    transposed: bool


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter that can be merged. `ties_weights`: it was trained with embedding and head as one."""

    folder: Path
    config: Mapping[str, Any]
    tensors: TensorSource

    @property
    def ties_weights(self) -> bool:
        """Whether what it does to an embedding is meant for a head of the same weights, too."""
        return self.config.get("ensure_weight_tying") is True

    def merged_into(self, base: TensorSource) -> "MergedSource":
        """`base` with this adapter merged.

        Raises UsageError where names, shapes or ranks do not fit.
        """
        deltas: dict[str, _Delta] = {}
        whole: dict[str, str] = {}
        factors: dict[tuple[str, bool], dict[str, str]] = {}
        for name in self.tensors.names:
            if match := _FACTOR.fullmatch(name.removesuffix(".weight")):
                key = match["module"].removeprefix(_PREFIX), bool(match["embedding"])
                factors.setdefault(key, {})[match["side"]] = name
            elif "lora_" not in name and (match := _WHOLE.fullmatch(name)):
                tensor = self._target(match["module"].removeprefix(_PREFIX), base)
                self._check_shape(name, base.info(tensor).shape, self.tensors.info(name).shape)
                whole[tensor] = name
            else:
                raise self._not_lora(name)
        for (module, embedding), pair in factors.items():
            tensor = self._target(module, base)
            deltas[tensor] = self._delta(module, pair, base.info(tensor).shape, embedding=embedding)
        if not deltas:
            raise UsageError(f"The adapter {self.folder} has no LoRA weights.", remedy=DOWNLOAD)
        return MergedSource(base, self.tensors, deltas, whole)

    def _target(self, module: str, base: TensorSource) -> str:
        """The tensor of `base` that is the weight of `module`.

        A checkpoint may leave out what a class of transformers puts before its names, or have more.
        """
        name = f"{module}.weight"
        while name != "weight":
            if name in base:
                return name
            name = name.partition(".")[2]
        longer = [other for other in base.names if other.endswith(f".{module}.weight")]
        if len(longer) == 1:
            return longer[0]
        raise UsageError(
            f"The adapter {self.folder.name} changes {module}, which the model does not have.",
            why="It was trained on another model"
            + (", or the model shares its head with its embedding." if module == "lm_head" else "."),
            remedy=f"Use it with the model it was trained on: {self._trained_on()}.",
        )

    def _delta(
        self, module: str, pair: Mapping[str, str], shape: tuple[int, ...], *, embedding: bool
    ) -> _Delta:
        for side in "AB":
            if side not in pair:
                raise UsageError(
                    f"The adapter {self.folder.name} lacks the factor lora_{side} of {module}.",
                    remedy=DOWNLOAD,
                )
        a, b = (self.tensors.info(pair[side]) for side in "AB")
        transposed = embedding or self.config.get("fan_in_fan_out") is True
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            raise UsageError(
                f"The factors of {module} do not fit each other: lora_A is {list(a.shape)}, lora_B is "
                f"{list(b.shape)}.",
                why="Only LoRA of matrices can be merged.",
                remedy=_BY_PEFT,
            )
        product = (b.shape[0], a.shape[1])
        self._check_shape(module, shape, product[::-1] if transposed else product)
        rank, alpha = self._rank_and_alpha(module)
        if rank != a.shape[0]:
            raise UsageError(
                f"{CONFIG_FILE} gives {module} the rank {rank}, its weights have {a.shape[0]}.",
                why="Configuration and weights of the adapter are of different versions.",
                remedy=DOWNLOAD,
            )
        _ = a.numpy_dtype, b.numpy_dtype  # raises for a dtype that cannot be read
        scale = alpha / (sqrt(rank) if self.config.get("use_rslora") is True else rank)
        return _Delta(a=pair["A"], b=pair["B"], scale=scale, transposed=transposed)

    def _rank_and_alpha(self, module: str) -> tuple[int, float]:
        """Rank and lora_alpha of `module`; a pattern matches the end of its name, as in PEFT."""
        found: list[Any] = []
        for patterns, default in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
            value = self.config.get(default, 8)
            for pattern, own in _mapping(self.config.get(patterns)).items():
                try:
                    matches = re.match(rf"(.*\.)?({pattern})$", module)
                except re.error:
                    raise _bad_config(self.folder, patterns, pattern) from None
                if matches:
                    value = own
                    break
            found.append(value)
        rank, alpha = found
        if type(rank) is not int or rank < 1:
            raise _bad_config(self.folder, "r", rank)
        if type(alpha) not in (int, float) or not isfinite(alpha):
            raise _bad_config(self.folder, "lora_alpha", alpha)
        return rank, float(alpha)

    def _check_shape(self, what: str, wanted: tuple[int, ...], found: tuple[int, ...]) -> None:
        if wanted != found:
            raise UsageError(
                f"The adapter {self.folder.name} does not fit: {what} is for weights of {list(found)}, the "
                f"model has {list(wanted)}.",
                why="It was trained on another model, or on one with a resized vocabulary.",
                remedy=f"Use it with the model it was trained on: {self._trained_on()}.",
            )

    def _trained_on(self) -> str:
        return str(self.config.get("base_model_name_or_path") or "its page should name it")

    def _not_lora(self, name: str) -> UsageError:
        return UsageError(
            f"The adapter {self.folder.name} holds {name}, which is no part of plain LoRA.",
            why="Only the factors of matrices, and whole weights, can be merged.",
            remedy=_BY_PEFT,
        )


class MergedSource(TensorSource):
    """The tensors of `base` as they are with an adapter merged; names, shapes and dtypes stay."""

    def __init__(
        self,
        base: TensorSource,
        adapter: TensorSource,
        deltas: Mapping[str, _Delta],
        whole: Mapping[str, str],
    ) -> None:
        super().__init__({name: base.info(name) for name in base.names}, base.files)
        self._base = base
        self._adapter = adapter
        self._deltas = dict(deltas)
        self._whole = dict(whole)
        # The factors of the tensors being read: small beside them, but not so all of them at once.
        self._factors: Callable[[str], tuple[NDArray[Any], NDArray[Any]]] = lru_cache(2)(self._read_factors)
        self._reading = Lock()

    @property
    def changed(self) -> tuple[str, ...]:
        """The tensors that the adapter changes."""
        return tuple(dict.fromkeys((*self._deltas, *self._whole)))

    def read(self, name: str, rows: slice | None = None) -> "NDArray[Any]":
        """As TensorSource.read; the product is summed in float64, so that blocks change no bit of it."""
        import numpy as np

        if name in self._whole:
            values = self._adapter.read(self._whole[name], rows).astype(self.info(name).numpy_dtype)
        else:
            values = self._base.read(name, rows)
        if (delta := self._deltas.get(name)) is None:
            return values
        with self._reading:
            left, right = self._factors(name)
        product = (left[rows or slice(None)].astype("f8") @ right.astype("f8")).astype(np.float32)
        merged: NDArray[Any] = values.astype(np.float32) + product * np.float32(delta.scale)
        return merged.astype(values.dtype)

    def _read_factors(self, name: str) -> "tuple[NDArray[Any], NDArray[Any]]":
        """The two matrices whose product, scaled, is added to `name`, row for row of the first."""
        delta = self._deltas[name]
        a, b = (self._adapter.read(factor) for factor in (delta.a, delta.b))
        return (a.T, b.T) if delta.transposed else (b, a)


def open_adapter(folder: Path) -> Adapter:
    """The PEFT adapter in `folder`.

    Raises UsageError where there is none, or one that is no plain LoRA; StageError where it cannot be
    read.
    """
    if not paths.is_file(folder / CONFIG_FILE):
        is_model = paths.is_file(folder / "config.json")
        raise UsageError(
            f"{folder} is no adapter: it has no {CONFIG_FILE}.",
            why="It is a whole model." if is_model else "",
            remedy="Name it as model.source, without an adapter."
            if is_model
            else "Name the folder that PEFT's save_pretrained wrote.",
        )
    config = read_json_object(folder / CONFIG_FILE)
    _check_kind(folder, config)
    weights = next((name for name in WEIGHT_FILES if paths.is_file(folder / name)), None)
    if weights is None:
        raise UsageError(
            f"The adapter {folder} has no weights: neither {' nor '.join(WEIGHT_FILES)}.", remedy=DOWNLOAD
        )
    return Adapter(folder=folder, config=config, tensors=open_tensors(folder / weights))


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise UsageError for an adapter of which W + scale * B @ A is not the whole story."""
    kind, start = config.get("peft_type", "LORA"), config.get("init_lora_weights", True)
    unusual = sorted(key for key, value in config.items() if value and key not in _UNDERSTOOD)
    problem = ""
    if kind != "LORA":
        problem = f"is of the kind {kind}"
    elif config.get("use_dora"):
        problem = "is a DoRA adapter (use_dora = true)"
    elif config.get("bias", "none") != "none" or config.get("lora_bias"):
        problem = "also changes biases (bias, lora_bias)"
    elif not isinstance(start, bool) and start not in _STARTS:
        problem = f"belongs to a base model changed by init_lora_weights = {start!r}"
    elif unusual:
        problem = f"sets {some(unusual)}, whose effect is not known here"
    if problem:
        raise UsageError(
            f"The adapter {folder} {problem}.",
            why="Only plain LoRA is merged here: W + scale * B @ A.",
            remedy=_BY_PEFT,
        )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _bad_config(folder: Path, key: str, value: object) -> UsageError:
    return UsageError(f"{folder / CONFIG_FILE} says {key} = {value!r}, which cannot be.", remedy=DOWNLOAD)
