"""The parameters of a decoder under the tensor names of one checkpoint.

The same model is saved with or without what a class of transformers puts before its names: GPT-2 on
the Hub has `wte.weight`, saved again it has `transformer.wte.weight`; the text part of a multimodal
Gemma 3 is `language_model.model.*` or, since transformers 4.52, `model.language_model.*`.
"""

from collections.abc import Container, Sequence
from dataclasses import replace

from engine.embedded.spec import Parameter

_PREFIXES = (
    ("", ""),
    ("model.", "model.language_model."),
    ("", "language_model."),
    ("", "transformer."),
    ("gpt_neox.", ""),
    ("model.", ""),
)
"""What the families' names begin with, and what that may be instead."""


def located(parameters: Sequence[Parameter], names: Container[str]) -> tuple[Parameter, ...]:
    """`parameters` with sources that are in `names`, by the first change of prefix that finds the embedding.

    As they are where none does.
    """
    if not parameters:
        return ()
    (embedding,) = parameters[0].sources
    for old, new in _PREFIXES:
        if embedding.startswith(old) and new + embedding.removeprefix(old) in names:
            return tuple(
                replace(p, sources=tuple(_renamed(source, old, new, names) for source in p.sources))
                for p in parameters
            )
    return tuple(parameters)


def _renamed(source: str, old: str, new: str, names: Container[str]) -> str:
    """A head often lies outside the prefix that all else has."""
    renamed = new + source.removeprefix(old) if source.startswith(old) else source
    return source if renamed not in names and source in names else renamed
