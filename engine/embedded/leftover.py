"""What a checkpoint holds beside its decoder's parameters: harmless, or a sign of another model."""

import re
from collections.abc import Iterable
from math import prod

from engine.embedded.spec import DecoderSpec, Parameter
from engine.errors import UsageError
from engine.model.files import some
from engine.model.tensors import TensorSource

IGNORED = (
    *("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"),
    *(".attn.bias", ".masked_bias", ".attention.bias"),
)
"""Ends of names: rotary tables and causal masks that old checkpoints have; everyone recomputes them."""
_HEADS = ("lm_head.weight", "embed_out.weight")
_BLOCK = 2**22  # elements compared at a time


def shares_head(parameters: Iterable[Parameter], spec: DecoderSpec) -> bool:
    """Whether the head has the weights of the embedding, stored once or, for GPT-2, twice."""
    sources = [p.sources for p in parameters if p.kind in ("embedding", "head")]
    return spec.tie_word_embeddings or len(set(sources)) < len(sources)


def left_over(parameters: tuple[Parameter, ...], tensors: TensorSource, spec: DecoderSpec) -> tuple[str, ...]:
    """The tensors that `parameters` make no use of, harmless ones apart: a vision tower, for example.

    Raises UsageError for those inside the decoder's own layers, and for biases of its head and norm. What
    config.json does not speak of, or a layer more than it counts, is part of what was trained: the model
    without it would load and write nonsense.
    """
    used = {name for parameter in parameters for name in parameter.sources}
    # The head of a tied model has the values of its embedding, saved twice.
    heads = _HEADS if shares_head(parameters, spec) else ()
    unused = tuple(
        name for name in tensors.names if name not in used and not name.endswith((*IGNORED, *heads))
    )
    layers = {
        name.partition(f"{number}.")[0]
        for parameter in parameters
        if (number := _layer_of(parameter)) == "0"
        for name in parameter.sources
    }
    inside = re.compile("|".join(rf"{re.escape(prefix)}\d" for prefix in layers))
    # Outside of them, a bias of the head or of the last norm.
    lost = [n for n in unused if inside.match(n) or f"{n.removesuffix('.bias')}.weight" in used]
    if lost:
        raise UsageError(
            f"The weights have {len(lost)} tensors of the decoder that config.json leaves no place for: "
            f"{some(lost)}.",
            why=f"By config.json this is a {spec.model_type} model of {len(spec.layers)} layers without "
            "them. They were trained with it; left out, it would load and write nonsense.",
            remedy="Check --model-type, and that config.json and weights are of the same model.",
        )
    return unused


def _layer_of(parameter: Parameter) -> str:
    return parameter.role.split(".")[1] if parameter.role.startswith("layers.") else ""


def check_tied_head(parameters: tuple[Parameter, ...], tensors: TensorSource, spec: DecoderSpec) -> None:
    """Raise UsageError where a model that shares its embedding as head has a head with other values.

    Reads both, a block of rows at a time, unless they are the same bytes of a file.
    """
    if not shares_head(parameters, spec):
        return
    (embedding,) = next(p.sources for p in parameters if p.kind == "embedding")
    for name in tensors.names:
        if name.endswith(_HEADS) and not _is_same(tensors, embedding, name):
            raise UsageError(
                f"{name} has other values than {embedding}, though config.json says that they are the same.",
                why="tie_word_embeddings is true there, or left out in a family where that means true. "
                "transformers 5 takes the head as it is stored, transformers 4 the embedding in its place; "
                "with the wrong one the model writes nonsense.",
                remedy="If the head was trained apart, set tie_word_embeddings to false in config.json; if "
                "not, download the weights again.",
            )


def _is_same(tensors: TensorSource, one: str, other: str) -> bool:
    import numpy as np

    left, right = tensors.info(one), tensors.info(other)
    if (left.file, left.offset, left.shape) == (right.file, right.offset, right.shape):
        return True
    if left.shape != right.shape:
        return False
    step = max(_BLOCK // max(prod(left.shape[1:]), 1), 1)
    blocks = (slice(start, start + step) for start in range(0, left.shape[0], step))
    return all(np.array_equal(tensors.read(one, rows), tensors.read(other, rows)) for rows in blocks)
