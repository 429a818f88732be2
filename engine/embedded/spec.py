"""What one decoder-only transformer is: the only thing the compiler knows about a model.

A family file turns the `model_config` of an `mlc-chat-config.json` into a DecoderSpec and lists the
parameters that go with it. Nothing here imports TVM, so that sizes can be computed anywhere.
"""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu_tanh"]
ParameterKind = Literal["embedding", "linear", "head", "norm"]


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Frequency scaling of rotary embeddings, as `rope_scaling` of a Hugging Face config states it."""

    rope_type: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """What may differ from layer to layer: the rope base and the attention window in tokens.

    A token attends to itself and the `window - 1` tokens before it; None is no limit.
    """

    rope_theta: float
    rope_scaling: RopeScaling | None = None
    window: int | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """A decoder-only transformer: RMS norms, rotary positions, grouped-query attention, gated MLP.

    `sandwich_norms`: Gemma's four norms a layer instead of two. `qk_norm`: an RMS norm over
    head_dim of queries and keys before rope. `fused_qkv`: one stored matrix for q, k and v.
    `norm_plus_one` is applied when weights are converted, so kernels never see it.
    """

    model_type: str
    prefix: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    layers: tuple[LayerSpec, ...]
    activation: Activation
    rms_norm_eps: float
    attention_scale: float
    embedding_scale: float = 1.0
    tie_word_embeddings: bool = False
    sandwich_norms: bool = False
    qk_norm: bool = False
    fused_qkv: bool = True
    norm_plus_one: bool = False


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One stored parameter: its MLC name, its shape, and the source tensors it is made of.

    `sources` are joined along axis 0 in their own dtype, then `plus_one` is added in that dtype,
    then the result is cast. Linear weights are [out_features, in_features].
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    kind: ParameterKind
    plus_one: bool = False
