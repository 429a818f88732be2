"""What a family file provides, and the parameters that a DecoderSpec has under a family's names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.embedded.spec import DecoderSpec, Parameter, ParameterKind
from engine.errors import UsageError

JSON = Mapping[str, Any]
Names = Mapping[str, str | tuple[str, ...]]
"""Role to names without `.weight` or `.bias`: that of MLC, then those of the source's tensors, of
which the parameter is joined; one name alone is both. `{i}` is the layer."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family.

    `model_config`: the normalised Hugging Face config (see `engine.model.config.normalise`) to the
    `model_config` that mlc_llm writes, before context and batch sizes are overridden.
    `aliases` are further model types that a Hugging Face config may state for it.
    `spec`: that `model_config` to a DecoderSpec. `parameters`: what is stored, in decoder order.
    `can_roll`: its KV cache may roll, as that of mlc_llm's families whose config has `attention_sink_size`.
    """

    model_type: str
    architectures: tuple[str, ...]
    model_config: Callable[[JSON], dict[str, Any]]
    spec: Callable[[JSON], DecoderSpec]
    parameters: Callable[[DecoderSpec], tuple[Parameter, ...]]
    aliases: tuple[str, ...] = ()
    can_roll: bool = False

    def check_rolling(self, window: int) -> None:
        """Raise UsageError for a rolling cache of `window` tokens (-1 for none) if it cannot roll."""
        if window > 0 and not self.can_roll:
            raise UsageError(
                f"sliding_window_size = {window}: the cache of a {self.model_type} model does not roll.",
                why="Only that of a Mistral does. Windows inside a model's layers need no setting.",
                remedy="Leave sliding_window_size out, and give a context_window_size.",
            )


_LAYER, _ATTENTION, _MLP = "model.layers.{i}.", "model.layers.{i}.self_attn.", "model.layers.{i}.mlp."
LLAMA_NAMES: Names = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "attention_norm": f"{_LAYER}input_layernorm",
    "mlp_norm": f"{_LAYER}post_attention_layernorm",
    "qkv": (f"{_ATTENTION}qkv_proj", *(f"{_ATTENTION}{part}_proj" for part in "qkv")),
    "q": f"{_ATTENTION}q_proj",
    "k": f"{_ATTENTION}k_proj",
    "v": f"{_ATTENTION}v_proj",
    "q_norm": f"{_ATTENTION}q_norm",
    "k_norm": f"{_ATTENTION}k_norm",
    "attention_out": f"{_ATTENTION}o_proj",
    "gate_up": (f"{_MLP}gate_up_proj", f"{_MLP}gate_proj", f"{_MLP}up_proj"),
    "up": f"{_MLP}up_proj",
    "down": f"{_MLP}down_proj",
}
"""What most families of Hugging Face call the parameters of a layer that has two norms."""

SANDWICH_NAMES: Names = {
    **LLAMA_NAMES,
    "attention_out_norm": f"{_LAYER}post_attention_layernorm",
    "mlp_norm": f"{_LAYER}pre_feedforward_layernorm",
    "mlp_out_norm": f"{_LAYER}post_feedforward_layernorm",
}
"""The same with a norm behind each sublayer, as Gemma 2, Gemma 3 and Olmo 2 have it."""


def parameters_named(
    names: Names, *, transposed: bool = False
) -> Callable[[DecoderSpec], tuple[Parameter, ...]]:
    """A family's `parameters` from what it calls them; see `decoder_parameters`."""
    return lambda spec: decoder_parameters(spec, names, transposed=transposed)


def decoder_parameters(
    spec: DecoderSpec, names: Names | None = None, *, transposed: bool = False
) -> tuple[Parameter, ...]:
    """The parameters of `spec` in the order in which the decoder uses them.

    `names` are those of most families where none are given. `transposed`: the source has its linear
    weights, the head's not, as [in_features, out_features].
    """
    if names is None:
        names = LLAMA_NAMES if spec.norm_placement == "pre" else SANDWICH_NAMES
    return tuple(
        _parameter(spec, names, role, shape, kind, transposed=transposed)
        for role, shape, kind in _parts(spec)
    )


def _parameter(
    spec: DecoderSpec,
    names: Names,
    role: str,
    shape: tuple[int, ...],
    kind: ParameterKind,
    *,
    transposed: bool,
) -> Parameter:
    weight = role.removesuffix(".bias")
    suffix = "weight" if weight == role else "bias"
    layer, _, last = weight.rpartition(".")
    given = names[last]
    stored, *sources = (given,) if isinstance(given, str) else given
    number = layer.removeprefix("layers.")
    named = [f"{name.replace('{i}', number)}.{suffix}" for name in (stored, *(sources or [stored]))]
    return Parameter(
        name=named[0],
        shape=shape,
        sources=tuple(named[1:]),
        kind=kind,
        role=role,
        plus_one=kind == "norm" and spec.norm_plus_one,
        transpose=transposed and kind == "linear",
    )


_Part = tuple[str, tuple[int, ...], ParameterKind]


def _parts(spec: DecoderSpec) -> Iterator[_Part]:
    """Role, shape and kind of every parameter."""
    hidden = spec.hidden_size
    yield "embedding", (spec.vocab_size, hidden), "embedding"
    if spec.position_embeddings == "learned":
        yield "positions", (spec.max_positions, hidden), "positions"
    for i in range(len(spec.layers)):
        for role, shape, kind in _layer(spec):
            yield f"layers.{i}.{role}", shape, kind
    yield from _norm(spec, "norm")
    if not spec.tie_word_embeddings:
        yield "head", (spec.vocab_size, hidden), "head"
    if spec.head_bias:
        yield "head.bias", (spec.vocab_size,), "bias"


def _layer(spec: DecoderSpec) -> Iterator[_Part]:
    hidden, inter, d = spec.hidden_size, spec.intermediate_size, spec.head_dim
    q, kv = spec.num_attention_heads * d, spec.num_key_value_heads * d
    before, behind = spec.norm_placement != "post", spec.norm_placement != "pre"
    if before:
        yield from _norm(spec, "attention_norm")
    if spec.qkv_layout == "apart":
        for role, size in (("q", q), ("k", kv), ("v", kv)):
            yield from _linear(role, size, hidden, bias=spec.qkv_bias)
    else:
        yield from _linear("qkv", q + 2 * kv, hidden, bias=spec.qkv_bias)
    if spec.qk_norm:
        for role, size in (("q_norm", q), ("k_norm", kv)):
            yield role, (d if spec.qk_norm == "head" else size,), "norm"
    yield from _linear("attention_out", hidden, q, bias=spec.attention_out_bias)
    if behind:
        yield from _norm(spec, "attention_out_norm")
    if before and not spec.shared_norm:
        yield from _norm(spec, "mlp_norm")
    if spec.gated_mlp:
        yield from _linear("gate_up", 2 * inter, hidden, bias=spec.mlp_bias)
    else:
        yield from _linear("up", inter, hidden, bias=spec.mlp_bias)
    yield from _linear("down", hidden, inter, bias=spec.mlp_bias)
    if behind:
        yield from _norm(spec, "mlp_out_norm")


def _norm(spec: DecoderSpec, role: str) -> Iterator[_Part]:
    yield role, (spec.hidden_size,), "norm"
    if spec.norm_bias:
        yield f"{role}.bias", (spec.hidden_size,), "bias"


def _linear(role: str, out_features: int, in_features: int, *, bias: bool) -> Iterator[_Part]:
    yield role, (out_features, in_features), "linear"
    if bias:
        yield f"{role}.bias", (out_features,), "bias"
