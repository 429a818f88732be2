"""One form for the configurations that transformers 4 and transformers 5 write.

transformers 5 nests rope settings in `rope_parameters` (per layer type where layers differ) and says
`dtype`; transformers 4 has `rope_theta`, `rope_local_base_freq`, `rope_scaling`, `partial_rotary_factor`
and `torch_dtype`, GPT-NeoX `rotary_emb_base` and `rotary_pct`. The rest of the program sees the spelling
of transformers 4 only. What wins where both are there is as in transformers 5 (modeling_rope_utils.py).
"""

from collections.abc import Mapping
from typing import Any

from engine.errors import UsageError

JSON = Mapping[str, Any]

# By these a `rope_parameters` of several layer types is told from one that holds for all.
_LAYER_TYPES = ("full_attention", "sliding_attention")
# transformers 4 has names of its own for this family.
_OWN_NAMES = {"gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}}
_WITH_ORIGINAL = ("llama3", "yarn", "longrope")
# Its default in transformers, where it stands nowhere; of other models it is max_position_embeddings.
_ORIGINAL = {"phi3": 4096}


def normalise(config: JSON) -> dict[str, Any]:
    """`config` in the spelling of transformers 4, every other key untouched; so is its `text_config`.

    A rope scaling of type "default" is none at all; its older key `type` becomes `rope_type`, and what
    other settings it holds go to keys of their own. Idempotent.
    Raises UsageError where rope settings are no JSON objects, or a name is no text.
    """
    out = dict(config)
    _check_names(out)
    if isinstance(text := out.get("text_config"), Mapping):
        out["text_config"] = normalise(text)
    dtype, older = out.pop("dtype", None), out.pop("torch_dtype", None)
    if (name := _dtype_name(dtype) or _dtype_name(older)) is not None:
        out["torch_dtype"] = name
    names = _OWN_NAMES.get(str(out.get("model_type")), {})
    for usual, own in names.items():
        if usual not in out and own in out:
            out[usual] = out[own]
    _move_rope(out)
    for usual, own in names.items():
        if usual in out:
            out[own] = out[usual]
    return out


def _check_names(config: JSON) -> None:
    """What a model is told by: `model_type` a text, `architectures` a list of texts, or neither there."""
    kind, architectures = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str | None):
        raise _wrong("model_type", kind, "text")
    is_list = isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    if architectures is not None and not is_list:
        raise _wrong("architectures", architectures, "list of texts")


def _wrong(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(
        f"config.json says {name} = {value!r}, which is no {wanted}.",
        remedy="Download config.json again, or correct it after the model that this one was made from.",
    )


def _move_rope(out: dict[str, Any]) -> None:
    """Give rope settings their keys of transformers 4, in place."""
    parameters = _object("rope_parameters", out.pop("rope_parameters", None))
    scaling = _object("rope_scaling", out.get("rope_scaling"))
    if any(kind in parameters for kind in _LAYER_TYPES):
        full, local = (_object(f"rope_parameters.{kind}", parameters.get(kind)) for kind in _LAYER_TYPES)
        # The layers without a window are the ones that older configurations speak of; where all have
        # one, theirs are the settings.
        usual = {**(full or local), **scaling}
        if "rope_theta" in local:
            out["rope_local_base_freq"] = local["rope_theta"]
    else:
        usual = dict(scaling or parameters)
    for name in ("rope_theta", "partial_rotary_factor"):
        if (value := usual.pop(name, None)) is not None:
            out[name] = value
    out["rope_scaling"] = _scaling(usual, out)


def _scaling(scaling: JSON, config: JSON) -> dict[str, Any] | None:
    out = dict(scaling)
    if "type" in out:
        out.setdefault("rope_type", out["type"])
        del out["type"]
    kind = out.get("rope_type", "default")
    if kind == "default":
        return None
    if kind == "su" or "short_factor" in out:  # older names of Phi 3's
        kind = "longrope"
    out["rope_type"] = kind
    if kind in _WITH_ORIGINAL:
        # Phi 3 states it beside the scaling, and means that.
        original = config.get("original_max_position_embeddings")
        if original is not None:
            out["original_max_position_embeddings"] = original
        else:
            model_type = str(config.get("model_type"))
            if (longest := _ORIGINAL.get(model_type, config.get("max_position_embeddings"))) is not None:
                out.setdefault("original_max_position_embeddings", longest)
    return out


def _dtype_name(value: object) -> str | None:
    """The name "bfloat16" for what is also written "torch.bfloat16", or for each part of a model."""
    if isinstance(value, Mapping):
        value = value.get("text_config", value.get(""))
    return value.removeprefix("torch.") if isinstance(value, str) else None


def _object(name: str, value: object) -> JSON:
    """The JSON object `value`, empty for null; UsageError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "JSON object")
    return value
