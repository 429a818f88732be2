"""Phi-1, Phi-1.5 and Phi-2: attention and MLP side by side from one layer norm, biases everywhere."""

from typing import Any

from engine.embedded.families.base import JSON, Family, Names, parameters_named
from engine.embedded.families.common import (
    activation,
    context_sizes,
    decoder_spec,
    head_dim,
    key_value_heads,
    refuse,
    stated,
)
from engine.embedded.spec import DecoderSpec

_TO, _FROM = "transformer.h.{i}.", "model.layers.{i}."
NAMES: Names = {
    "embedding": ("transformer.embd", "model.embed_tokens"),
    "attention_norm": (f"{_TO}ln", f"{_FROM}input_layernorm"),
    "qkv": (f"{_TO}mixer.Wqkv", *(f"{_FROM}self_attn.{part}_proj" for part in "qkv")),
    "attention_out": (f"{_TO}mixer.out_proj", f"{_FROM}self_attn.dense"),
    "up": (f"{_TO}mlp.fc1", f"{_FROM}mlp.fc1"),
    "down": (f"{_TO}mlp.fc2", f"{_FROM}mlp.fc2"),
    "norm": ("lm_head.ln", "model.final_layernorm"),
    "head": ("lm_head.linear", "lm_head"),
}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's Phi1Config."""
    refuse(config, "Phi", qk_layernorm=False, tie_word_embeddings=False)
    act = config.get("hidden_act", "gelu_new")
    return {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config.get("intermediate_size") or 4 * config["hidden_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "layer_norm_eps": config.get("layer_norm_eps", 1e-5),
        "position_embedding_base": config.get("rope_theta", 10000.0),
        "partial_rotary_factor": config.get("partial_rotary_factor", 0.5),
        "num_key_value_heads": key_value_heads(config),
        **context_sizes(config),
        "head_dim": head_dim(config),
        "tensor_parallel_shards": 1,
        "max_batch_size": 1,
        **({"hidden_act": act} if act != "gelu_new" else {}),
        **stated(config, "rope_scaling"),
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    return decoder_spec(
        "phi",
        model,
        activation=activation(model.get("hidden_act", "gelu_new")),
        norm="layer",
        norm_eps=model["layer_norm_eps"],
        norm_bias=True,
        parallel_residual=True,
        shared_norm=True,
        qkv_bias=True,
        attention_out_bias=True,
        mlp_bias=True,
        head_bias=True,
        gated_mlp=False,
        rotary_dim=int(model["head_dim"] * model["partial_rotary_factor"]),
    )


FAMILY = Family(
    model_type="phi",
    architectures=("PhiForCausalLM",),
    model_config=model_config,
    spec=spec,
    parameters=parameters_named(NAMES),
)
