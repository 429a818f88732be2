"""GPT-2: learned positions, layer norms, biases, and linear weights stored as [in, out] (Conv1D).

MLC stores the head apart though the model shares it with its embedding.
"""

from typing import Any

from engine.embedded.families.base import JSON, Family, Names, parameters_named
from engine.embedded.families.common import activation, context_sizes, refuse
from engine.embedded.spec import DecoderSpec, LayerSpec

_TO, _FROM = "transformer.h.{i}.", "h.{i}."
NAMES: Names = {
    "embedding": ("transformer.wte", "wte"),
    "positions": ("transformer.wpe", "wpe"),
    "attention_norm": (f"{_TO}ln_1", f"{_FROM}ln_1"),
    "qkv": (f"{_TO}attn.c_attn", f"{_FROM}attn.c_attn"),
    "attention_out": (f"{_TO}attn.c_proj", f"{_FROM}attn.c_proj"),
    "mlp_norm": (f"{_TO}ln_2", f"{_FROM}ln_2"),
    "up": (f"{_TO}mlp.c_fc", f"{_FROM}mlp.c_fc"),
    "down": (f"{_TO}mlp.c_proj", f"{_FROM}mlp.c_proj"),
    "norm": ("transformer.ln_f", "ln_f"),
    "head": ("lm_head", "wte"),
}


def model_config(config: JSON) -> dict[str, Any]:
    """The fields of mlc_llm's GPT2Config, and `n_positions`: a smaller context leaves the table as it is."""
    refuse(
        config,
        "GPT-2",
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    hidden, heads = config["n_embd"], config["n_head"]
    if hidden % heads:
        raise ValueError(f"n_embd = {hidden} is no multiple of n_head = {heads}")
    act = config.get("activation_function", "gelu_new")
    return {
        "vocab_size": config["vocab_size"],
        "n_embd": hidden,
        "n_layer": config["n_layer"],
        "n_head": heads,
        "layer_norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "n_inner": config.get("n_inner") or 4 * hidden,
        **context_sizes(config, config["n_positions"]),
        "scale_attn_by_inverse_layer_idx": False,
        "tensor_parallel_shards": 1,
        "head_dim": hidden // heads,
        "max_batch_size": 1,
        "n_positions": config["n_positions"],
        **({"activation_function": act} if act != "gelu_new" else {}),
    }


def spec(model: JSON) -> DecoderSpec:
    """The decoder that `model_config` describes."""
    return DecoderSpec(
        model_type="gpt2",
        vocab_size=model["vocab_size"],
        hidden_size=model["n_embd"],
        intermediate_size=model["n_inner"],
        num_attention_heads=model["n_head"],
        num_key_value_heads=model["n_head"],
        head_dim=model["head_dim"],
        layers=(LayerSpec(),) * model["n_layer"],
        activation=activation(model.get("activation_function", "gelu_new")),
        attention_scale=float(model["head_dim"] ** -0.5),
        norm="layer",
        norm_eps=model["layer_norm_epsilon"],
        norm_bias=True,
        qkv_bias=True,
        attention_out_bias=True,
        mlp_bias=True,
        gated_mlp=False,
        rotary_dim=0,
        position_embeddings="learned",
        max_positions=model["n_positions"],
    )


FAMILY = Family(
    model_type="gpt2",
    architectures=("GPT2LMHeadModel",),
    model_config=model_config,
    spec=spec,
    parameters=parameters_named(NAMES, transposed=True),
)
