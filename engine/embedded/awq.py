"""AWQ checkpoints: 4 bit integers with zero points that AutoAWQ made, taken over as they are.

A linear layer of in_features K and out_features N comes as qweight int32 [K, N / 8], qzeros int32
[K / 128, N / 8] and scales float16 [K / 128, N]; weight = (integer - zero) * scale. A word holds 8
neighbours along N in the order 0 2 4 6 1 3 5 7, the first lowest (AutoAWQ, `awq/utils/packing_utils.py`).
mlc_llm's q4f16_autoawq stores exactly these, joined along N where it joins layers.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from engine.catalog import QUANTIZATIONS, Quantization
from engine.embedded.spec import Parameter
from engine.errors import UsageError

AUTOAWQ = QUANTIZATIONS["q4f16_autoawq"]
FAMILIES = ("llama", "mistral")
"""The families for which mlc_llm reads AWQ checkpoints and this compiler has the model."""

_WANTED = {"bits": 4, "group_size": AUTOAWQ.group_size, "zero_point": True, "version": "gemm"}
# What tells a method that does not name itself: bitsandbytes of old, and MLX.
_UNNAMED = {"load_in_4bit": "bitsandbytes", "load_in_8bit": "bitsandbytes", "group_size": "mlx"}
_ORIGINAL = "Start from the model's original checkpoint in BF16, F16 or F32"


def method(config: Mapping[str, Any]) -> str:
    """The `quant_method` of a Hugging Face config, lower case; empty where the model is not quantized."""
    found = _settings(config)
    if found is None:
        return ""
    if method := found.get("quant_method"):
        return str(method).lower()
    return next((name for key, name in _UNNAMED.items() if key in found), "unknown")


def _settings(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a model is quantized, by the name that its config has for that; None for one that is not."""
    text = config.get("text_config")
    for place in (config, text if isinstance(text, Mapping) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            if isinstance(found := place.get(key), Mapping):
                return found
    return None


def check(config: Mapping[str, Any], model_type: str) -> None:
    """Raise UsageError for a model that is quantized already, but for an AWQ checkpoint that can be read."""
    found = method(config)
    if not found:
        return
    if found != "awq":
        raise UsageError(
            f"This model is quantized already ({found}).",
            why="Its tensors are stored in another form, and quantizing twice loses too much.",
            remedy=f"{_ORIGINAL}; of quantized ones, AWQ checkpoints can be exported.",
        )
    settings = _settings(config) or {}
    given = {name: settings.get(name, wanted) for name, wanted in _WANTED.items()}
    given["version"] = str(given["version"]).lower()
    given["bits"] = settings.get("bits", settings.get("w_bit", 4))
    given["group_size"] = settings.get("group_size", settings.get("q_group_size", AUTOAWQ.group_size))
    if wrong := [f"{name} = {given[name]}" for name, wanted in _WANTED.items() if given[name] != wanted]:
        raise UsageError(
            f"This AWQ checkpoint has {', '.join(wrong)}.",
            why="q4f16_autoawq is "
            + ", ".join(f"{name} = {wanted}" for name, wanted in _WANTED.items())
            + ".",
            remedy=f"{_ORIGINAL}, or from an AWQ checkpoint with those settings.",
        )
    if model_type not in FAMILIES:
        raise UsageError(
            f"AWQ checkpoints of {model_type} models cannot be exported, only {' and '.join(FAMILIES)}.",
            remedy=f"{_ORIGINAL}.",
        )


def check_pair(found: str, quantization: Quantization) -> None:
    """Raise UsageError unless the source's quant_method and `quantization` go together."""
    if quantization.from_awq and found != "awq":
        raise UsageError(
            f"{quantization.name} takes over the 4 bit weights of an AWQ checkpoint, and this model is none.",
            remedy="Choose q4f16_1, or name an AWQ checkpoint of the model.",
        )
    if found == "awq" and not quantization.from_awq:
        raise UsageError(
            f"This model is an AWQ checkpoint, quantized already; it cannot become {quantization.name}.",
            why="Quantizing twice loses too much.",
            remedy=f"Choose {AUTOAWQ.name}. {_ORIGINAL} for any other quantization.",
        )


def no_adapter() -> UsageError:
    """What to tell where an adapter is to be merged into an AWQ checkpoint."""
    return UsageError(
        "A LoRA adapter cannot be merged into an AWQ checkpoint: its weights are integers.",
        remedy=f"{_ORIGINAL}, and merge the adapter into that.",
    )


def packed(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """`parameters` with each linear weight [N, K] replaced by the three tensors of it that are stored.

    Raises UsageError for a layer that groups of 128 or words of 8 do not divide: AWQ has no padding.
    """
    result: list[Parameter] = []
    for parameter in parameters:
        if parameter.kind != "linear":
            result.append(parameter)
            continue
        rows, columns = parameter.shape
        if columns % AUTOAWQ.group_size or rows % AUTOAWQ.elements_per_word:
            raise UsageError(
                f"{parameter.name} is {rows} x {columns}, which AWQ cannot store.",
                why="In-features come in groups of 128, out-features in words of 8.",
                remedy="Check config.json against the model this one was made from.",
            )
        shapes = packed_shapes(rows, columns)
        for name, shape in shapes.items():
            result.append(
                Parameter(
                    name=parameter.name.removesuffix("weight") + name,
                    shape=shape,
                    sources=tuple(source.removesuffix("weight") + name for source in parameter.sources),
                    kind="scales" if name == "scales" else "integers",
                    role=f"{parameter.role}.{name}",
                    axis=1,
                )
            )
    return tuple(result)


def packed_shapes(rows: int, columns: int) -> dict[str, tuple[int, int]]:
    """The stored tensors of a linear weight [rows, columns] by suffix, in the order kernels take them."""
    words, groups = rows // AUTOAWQ.elements_per_word, -(-columns // AUTOAWQ.group_size)
    return {"qweight": (columns, words), "qzeros": (groups, words), "scales": (groups, rows)}
