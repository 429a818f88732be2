"""What one decoder-only transformer is: the only thing the compiler knows about a model.

A family file turns the `model_config` of an `mlc-chat-config.json` into a DecoderSpec and lists the
parameters that go with it. Nothing here imports TVM, so that sizes can be computed anywhere.
"""

from dataclasses import dataclass
from typing import Literal

from engine.catalog import ModelDtype

Activation = Literal["silu", "gelu_tanh", "gelu"]
"""`gelu` is the exact one, with erf; `gelu_tanh` is also what transformers calls gelu_new."""
ParameterKind = Literal["embedding", "positions", "linear", "head", "norm", "bias", "integers", "scales"]
"""`integers` and `scales` are parts of a linear weight that an AWQ checkpoint has quantized."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Frequency scaling of rotary embeddings, as `rope_scaling` of a Hugging Face config states it.

    longrope divides the frequency of pair j by `short_factor[j]` in sequences of at most
    `original_max_position_embeddings` tokens, by `long_factor[j]` in longer ones, and multiplies
    cosines and sines by `attention_factor` in both. yarn does so with `short_factor` in sequences of any
    length.
    """

    rope_type: Literal["linear", "llama3", "yarn", "longrope"]
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    attention_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """What may differ from layer to layer: the rope base and the attention window in tokens.

    A token attends to itself and the `window - 1` tokens before it; None is no limit.
    """

    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    window: int | None = None


@dataclass(frozen=True, kw_only=True)
class RollingCache:
    """A KV cache of `window` tokens for endless text: it keeps the first `sinks` and the latest others.

    That is StreamingLLM, as MLC's runtimes do it for every layer alike. The cache holds keys as they are
    before rope. Token t (from 0) sees each token j up to itself with j < sinks or t - j <= window - sinks:
    the sinks, the window - sinks tokens before it, and itself. Both are rotated as if t - j apart within
    that distance, and min(t, window) - j where a sink is farther away, so that no distance is one that
    the model never met. What tokens see does not depend on the chunks in which they came.
    """

    window: int
    sinks: int


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """A decoder-only transformer; with the defaults one of Llama's kind.

    `norm`: RMS norms, or layer norms, with a bias if `norm_bias`. `norm_placement`: `pre` is
    x + sublayer(norm(x)), `post` x + norm(sublayer(x)), `sandwich` x + norm(sublayer(norm(x))).
    `parallel_residual`: attention and MLP both start from x, and x + attention + mlp is the result;
    with `shared_norm` from one norm of x.

    `qk_norm`: an RMS norm of queries and keys before rope, over each head or over the full projection.
    `qkv_layout`: how q, k and v are stored: in three matrices, or one after the other in one.
    `gated_mlp`: down(act(gate) * up), else down(act(up)).

    `rotary_dim`: how many of the head_dim elements of a head are rotated, the first ones; 0 for none.
    A `rolling` cache rotates inside attention; no layer has a window then.
    `learned` position embeddings are rows of a table of `max_positions`, added to the embeddings.
    A softcap c turns attention scores or logits x into c * tanh(x / c). `norm_plus_one` is applied
    when weights are converted, so kernels never see it.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    layers: tuple[LayerSpec, ...]
    activation: Activation
    norm_eps: float
    attention_scale: float
    rotary_dim: int
    embedding_scale: float = 1.0
    tie_word_embeddings: bool = False
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    norm_placement: Literal["pre", "sandwich", "post"] = "pre"
    norm_plus_one: bool = False
    parallel_residual: bool = False
    shared_norm: bool = False
    qk_norm: Literal["head", "full"] | None = None
    qkv_layout: Literal["apart", "joined"] = "joined"
    qkv_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    gated_mlp: bool = True
    position_embeddings: Literal["rope", "learned"] = "rope"
    max_positions: int = 0
    rolling: RollingCache | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One stored parameter: its role, its MLC name, its shape, and the source tensors it is made of.

    The decoder finds parameters by `role`, which is the same for every family:
    `embedding`, `positions`, `norm`, `head`, and `layers.{i}.` with `attention_norm`, `mlp_norm`,
    `attention_out_norm`, `mlp_out_norm`, `qkv`, `q`, `k`, `v`, `q_norm`, `k_norm`, `attention_out`,
    `gate_up`, `up` or `down`; the bias that belongs to one of these has `.bias` at its end.

    `sources` are joined along `axis` in their own dtype, then `plus_one` is added in that dtype,
    then the result is cast, to `dtype` where that is not the quantization's model dtype. Linear
    weights are [out_features, in_features], norms and biases [features]. The sources of a `transpose`
    parameter are stored the other way round. Where q, k and v of the same head lie together in the
    source, rows [heads, 3, head_dim], `interleaved_heads` is the number of heads.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    kind: ParameterKind
    role: str
    plus_one: bool = False
    transpose: bool = False
    interleaved_heads: int = 0
    dtype: ModelDtype | None = None
    axis: int = 0
