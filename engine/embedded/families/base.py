"""What a family file provides, and the parameters that all gated-MLP decoders share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.embedded.spec import DecoderSpec, Parameter

JSON = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family.

    `model_config`: the normalised Hugging Face config (see `engine.model.config.normalise`) to the
    `model_config` that mlc_llm writes, before context and batch sizes are overridden.
    `spec`: that `model_config` to a DecoderSpec. `parameters`: what is stored, in decoder order.
    """

    model_type: str
    architectures: tuple[str, ...]
    model_config: Callable[[JSON], dict[str, Any]]
    spec: Callable[[JSON], DecoderSpec]
    parameters: Callable[[DecoderSpec], tuple[Parameter, ...]]


def decoder_parameters(spec: DecoderSpec, *, source_prefix: str = "model.") -> tuple[Parameter, ...]:
    """The parameters of `spec` under the names mlc_llm gives them, in the order the decoder uses them.

    `source_prefix` is what Hugging Face puts before `embed_tokens`, `layers` and `norm`.
    """
    hidden, inter, d = spec.hidden_size, spec.intermediate_size, spec.head_dim
    q, kv = spec.num_attention_heads * d, spec.num_key_value_heads * d

    def norm(name: str, size: int = hidden) -> Parameter:
        return Parameter(
            name=f"{spec.prefix}{name}.weight",
            shape=(size,),
            sources=(f"{source_prefix}{name}.weight",),
            kind="norm",
            plus_one=spec.norm_plus_one,
        )

    def linear(name: str, out_features: int, in_features: int, *parts: str) -> Parameter:
        base = name.rpartition(".")[0]
        return Parameter(
            name=f"{spec.prefix}{name}.weight",
            shape=(out_features, in_features),
            sources=tuple(f"{source_prefix}{base}.{p}.weight" for p in parts)
            or (f"{source_prefix}{name}.weight",),
            kind="linear",
        )

    params = [
        Parameter(
            name=f"{spec.prefix}embed_tokens.weight",
            shape=(spec.vocab_size, hidden),
            sources=(f"{source_prefix}embed_tokens.weight",),
            kind="embedding",
        )
    ]
    for i in range(len(spec.layers)):
        layer = f"layers.{i}."
        attn, mlp = f"{layer}self_attn.", f"{layer}mlp."
        params.append(norm(f"{layer}input_layernorm"))
        if spec.fused_qkv:
            params.append(linear(f"{attn}qkv_proj", q + 2 * kv, hidden, "q_proj", "k_proj", "v_proj"))
        else:
            params += [
                linear(f"{attn}q_proj", q, hidden),
                linear(f"{attn}k_proj", kv, hidden),
                linear(f"{attn}v_proj", kv, hidden),
            ]
        if spec.qk_norm:
            params += [norm(f"{attn}q_norm", d), norm(f"{attn}k_norm", d)]
        params.append(linear(f"{attn}o_proj", hidden, q))
        params.append(norm(f"{layer}post_attention_layernorm"))
        if spec.sandwich_norms:
            params.append(norm(f"{layer}pre_feedforward_layernorm"))
        params.append(linear(f"{mlp}gate_up_proj", 2 * inter, hidden, "gate_proj", "up_proj"))
        params.append(linear(f"{mlp}down_proj", hidden, inter))
        if spec.sandwich_norms:
            params.append(norm(f"{layer}post_feedforward_layernorm"))
    params.append(norm("norm"))
    if not spec.tie_word_embeddings:
        head_prefix = spec.prefix.removesuffix("model.")
        params.append(
            Parameter(
                name=f"{head_prefix}lm_head.weight",
                shape=(spec.vocab_size, hidden),
                sources=("lm_head.weight",),
                kind="head",
            )
        )
    return tuple(params)
