"""GPT-NeoX: RedPajama-INCITE, Pythia, Dolly.

Layer norms, biases everywhere but in the head, partial rotary positions, an MLP without gate, and q, k
and v that a checkpoint has head by head; attention and MLP run side by side unless the config says otherwise.
"""

from dataclasses import replace
from typing import Any

from engine.embedded.families.base import JSON, Family, Names, decoder_parameters
from engine.embedded.families.common import activation, context_sizes, decoder_spec, head_dim, stated
from engine.embedded.spec import DecoderSpec, Parameter

_LAYER = "gpt_neox.layers.{i}."
NAMES: Names = {
    "embedding": "gpt_neox.embed_in",
    "attention_norm": f"{_LAYER}input_layernorm",
    "qkv": f"{_LAYER}attention.query_key_value",
    "attention_out": f"{_LAYER}attention.dense",
    "mlp_norm": f"{_LAYER}post_attention_layernorm",
    "up": f"{_LAYER}mlp.dense_h_to_4h",
    "down": f"{_LAYER}mlp.dense_4h_to_h",
    "norm": "gpt_neox.final_layer_norm",
    "head": "embed_out",
}

# What transformers takes where config.json says nothing.
_DEFAULTS = {"layer_norm_eps": 1e-5}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's GPTNeoXConfig; transformers 4 and 5 call the rotary settings differently."""
    config = {**_DEFAULTS, **config}
    act = config.get("hidden_act", "gelu")
    return {
        "use_parallel_residual": config.get("use_parallel_residual", True),
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_hidden_layers": config["num_hidden_layers"],
        "layer_norm_eps": config["layer_norm_eps"],
        "vocab_size": config["vocab_size"],
        "rotary_pct": config.get("rotary_pct", config.get("partial_rotary_factor", 0.25)),
        "position_embedding_base": config.get("rotary_emb_base", config.get("rope_theta", 10000)),
        **context_sizes(config),
        "head_dim": head_dim(config),
        "tensor_parallel_shards": 1,
        "ffn_out_dtype": "float32",
        "max_batch_size": 1,
        **({"hidden_act": act} if act != "gelu" else {}),
        **({"attention_bias": False} if config.get("attention_bias") is False else {}),
        **stated(config, "tie_word_embeddings", "rope_scaling"),
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    bias = model.get("attention_bias", True)
    return decoder_spec(
        "gpt_neox",
        model,
        activation=activation(model.get("hidden_act", "gelu")),
        norm="layer",
        norm_eps=model["layer_norm_eps"],
        norm_bias=True,
        parallel_residual=model["use_parallel_residual"],
        qkv_bias=bias,
        attention_out_bias=bias,
        mlp_bias=True,
        gated_mlp=False,
        rotary_dim=int(model["head_dim"] * model["rotary_pct"]),
    )


def parameters(spec: DecoderSpec) -> tuple[Parameter, ...]:
    """The parameters, as mlc_llm stores them: the biases of the MLP in float32 whatever the quantization."""
    return tuple(
        replace(
            parameter,
            interleaved_heads=spec.num_attention_heads if ".qkv" in parameter.role else 0,
            dtype="float32" if parameter.role.endswith(("up.bias", "down.bias")) else None,
        )
        for parameter in decoder_parameters(spec, NAMES)
    )


FAMILY = Family(
    model_type="gpt_neox",
    architectures=("GPTNeoXForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=parameters,
)
