"""config.json of published models: the fields that theirs have, and the sizes made small.

Facts as of 2025; what the fields mean is transformers' to say (data/config_references.json), not ours.
Vocabularies, widths and depths are small ones of the same kind (more heads than key heads, a head_dim that
is or is not hidden / heads); context, windows, thetas and scalings are the real ones.
"""

from typing import Any

Config = dict[str, Any]

_SMALL: Config = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_RUN: Config = {"attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True}
_LLAMA: Config = {
    **_SMALL,
    **_RUN,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
_LLAMA3_ROPE: Config = {
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
_LLAMA3: Config = _LLAMA | {
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "rope_theta": 500000.0,
}
_LLAMA32: Config = _LLAMA3 | {
    "head_dim": 16,
    "rope_scaling": {"factor": 32.0, **_LLAMA3_ROPE},
    "tie_word_embeddings": True,
}
_MISTRAL: Config = {
    **_SMALL,
    **_RUN,
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
_QWEN2: Config = {
    **_SMALL,
    **_RUN,
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}
_QWEN3: Config = _QWEN2 | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 32,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
}
_GEMMA: Config = {
    **_SMALL,
    **_RUN,
    "attention_bias": False,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 32,
    "max_position_embeddings": 8192,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
}
_GEMMA3: Config = _GEMMA | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 32768,
    "num_hidden_layers": 7,
    "query_pre_attn_scalar": 256,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
}
_GEMMA3_270M: Config = _GEMMA3 | {
    "_sliding_window_pattern": 6,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
    "use_bidirectional_attention": False,
}
_NEOX: Config = {
    **_SMALL,
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "rotary_emb_base": 10000,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
}
_PHI: Config = {
    **_SMALL,
    **_RUN,
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi",
    "bos_token_id": None,
    "embd_pdrop": 0.0,
    "eos_token_id": None,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_key_value_heads": None,
    "qk_layernorm": False,
    "resid_pdrop": 0.0,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
_PHI3: Config = {
    **_SMALL,
    **_RUN,
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "auto_map": {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    },
    "attention_bias": False,
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "num_key_value_heads": 4,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
_PHI3_LONG: Config = _PHI3 | {"max_position_embeddings": 131072, "sliding_window": 262144}
_STABLELM: Config = {
    **_SMALL,
    **_RUN,
    "architectures": ["StableLmForCausalLM"],
    "model_type": "stablelm",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 4096,
    "num_key_value_heads": 4,
    "partial_rotary_factor": 0.25,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
_GPT2: Config = {
    "vocab_size": 384,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}


def _factors(pairs: int, kind: str) -> Config:
    """LongRoPE's factors, rising as the published ones do."""
    return {
        "long_factor": [1.0 + 0.75 * i * i for i in range(pairs)],
        "short_factor": [1.0 + 0.05 * i for i in range(pairs)],
        "type": kind,
    }


PUBLISHED: dict[str, Config] = {
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA
    | {"num_key_value_heads": 4, "torch_dtype": "float16", "transformers_version": "4.32.0.dev0"},
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA
    | {
        "bos_token_id": 128000,
        "eos_token_id": 128009,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    },
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA3 | {"rope_scaling": {"factor": 8.0, **_LLAMA3_ROPE}},
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA32,
    "meta-llama/Llama-3.2-3B-Instruct": _LLAMA32
    | {"head_dim": 32, "num_attention_heads": 3}
    | {"hidden_size": 96, "num_key_value_heads": 1},
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA3
    | {"eos_token_id": 128001, "rope_scaling": {"factor": 8.0, **_LLAMA3_ROPE}},
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _LLAMA | {"max_position_embeddings": 2048, "rope_theta": 10000.0},
    "HuggingFaceTB/SmolLM2-135M-Instruct": _LLAMA
    | {
        "is_llama_config": True,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "pad_token_id": 2,
        "rope_interleaved": False,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"}},
    },
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _LLAMA
    | {
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "num_key_value_heads": 4,
        "pad_token_id": 2,
        "rope_theta": 130000,
        "tie_word_embeddings": True,
    },
    "mistralai/Mistral-7B-Instruct-v0.1": _MISTRAL | {"rope_theta": 10000.0, "sliding_window": 4096},
    "mistralai/Mistral-7B-Instruct-v0.2": _MISTRAL | {"rope_theta": 1000000.0, "sliding_window": None},
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL
    | {"head_dim": None, "rope_theta": 1000000.0, "sliding_window": None},
    "mistralai/Mistral-Nemo-Instruct-2407": _MISTRAL
    | {"head_dim": 32, "max_position_embeddings": 131072, "rope_theta": 1000000.0, "sliding_window": None},
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN2,
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN2,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN2
    | {"max_window_layers": 28, "sliding_window": 131072, "tie_word_embeddings": False},
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _QWEN2
    | {
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "max_position_embeddings": 131072,
        "rope_theta": 10000,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "use_mrope": False,
    },
    "Qwen/Qwen3-0.6B": _QWEN3,
    "Qwen/Qwen3-1.7B": _QWEN3 | {"head_dim": 16},
    "Qwen/Qwen3-4B-Instruct-2507": _QWEN3 | {"max_position_embeddings": 262144, "rope_theta": 5000000},
    "google/gemma-2b-it": _GEMMA
    | {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "hidden_act": "gelu",
        "num_key_value_heads": 1,
        "rope_scaling": None,
    },
    "google/gemma-2-2b-it": _GEMMA
    | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    "google/gemma-3-270m-it": _GEMMA3_270M,
    "google/functiongemma-270m-it": _GEMMA3_270M | {"eos_token_id": [1, 50], "dtype": "bfloat16"},
    "google/gemma-3-1b-it": _GEMMA3
    | {"cache_implementation": "hybrid", "eos_token_id": [1, 106], "sliding_window_pattern": 6},
    "google/gemma-3-4b-it": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 64,
            "intermediate_size": 96,
            "model_type": "gemma3_text",
            "num_hidden_layers": 7,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1152, "image_size": 896, "model_type": "siglip_vision_model"},
    },
    "google/gemma-3-27b-it": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "eos_token_id": [1, 106],
        "model_type": "gemma3",
        "text_config": {
            "head_dim": 32,
            "hidden_size": 64,
            "intermediate_size": 96,
            "model_type": "gemma3_text",
            "num_attention_heads": 4,
            "num_hidden_layers": 7,
            "num_key_value_heads": 2,
            "query_pre_attn_scalar": 168,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {"model_type": "siglip_vision_model"},
    },
    "togethercomputer/RedPajama-INCITE-Chat-3B-v1": _NEOX
    | {"rotary_pct": 1.0, "use_parallel_residual": False},
    "EleutherAI/pythia-410m": _NEOX | {"rotary_pct": 0.25, "use_parallel_residual": True},
    "microsoft/phi-1_5": _PHI | {"partial_rotary_factor": 0.5},
    "microsoft/phi-2": _PHI
    | {"bos_token_id": 50256, "eos_token_id": 50256, "num_key_value_heads": 4, "partial_rotary_factor": 0.4}
    | {"hidden_size": 160},
    "microsoft/Phi-3-mini-4k-instruct": _PHI3 | {"sliding_window": 2047},
    "microsoft/Phi-3-mini-128k-instruct": _PHI3_LONG | {"rope_scaling": _factors(8, "longrope")},
    "microsoft/Phi-3.5-mini-instruct": _PHI3_LONG | {"rope_scaling": _factors(8, "longrope")},
    "microsoft/Phi-4-mini-instruct": _PHI3_LONG
    | {
        "bos_token_id": 199999,
        "eos_token_id": 199999,
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "mlp_bias": False,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.75,
        "rope_scaling": _factors(6, "longrope"),
        "tie_word_embeddings": True,
    },
    "microsoft/phi-4": _PHI3
    | {
        "bos_token_id": 100257,
        "eos_token_id": 100265,
        "max_position_embeddings": 16384,
        "num_key_value_heads": 1,
        "original_max_position_embeddings": 16384,
        "rope_theta": 250000,
        "sliding_window": None,
    },
    "allenai/OLMo-2-0425-1B-Instruct": {
        **_SMALL,
        **_RUN,
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "attention_bias": False,
        "bos_token_id": 100257,
        "eos_token_id": 100257,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "num_key_value_heads": 4,
        "pad_token_id": 100277,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    "stabilityai/stablelm-2-zephyr-1_6b": _STABLELM
    | {
        "bos_token_id": 100257,
        "eos_token_id": 100257,
        "hidden_dropout": 0.0,
        "qk_layernorm": False,
        "use_parallel_residual": False,
        "use_qkv_bias": True,
    },
    "stabilityai/stablelm-zephyr-3b": _STABLELM | {"use_qkv_bias": False},
    "openai-community/gpt2": _GPT2,
    "distilbert/distilgpt2": _GPT2 | {"_num_labels": 1, "id2label": {"0": "LABEL_0"}},
    "microsoft/DialoGPT-medium": _GPT2 | {"task_specific_params": {"conversational": {"max_length": 1000}}},
}
"""config.json by the id of the repository."""

_WIDE: Config = {"hidden_size": 64, "num_attention_heads": 32}
MADE: dict[str, Config] = {
    "Mistral of 32 heads": _MISTRAL | _WIDE,
    "Qwen 2.5 of 32 heads, its window on": _QWEN2
    | _WIDE
    | {"max_window_layers": 1, "num_key_value_heads": 32, "sliding_window": 64, "use_sliding_window": True},
    "Qwen 3 of 32 heads, its window on, with biases": _QWEN3
    | _WIDE
    | {"attention_bias": True, "head_dim": 4, "num_key_value_heads": 32}
    | {"max_window_layers": 1, "sliding_window": 64, "use_sliding_window": True},
    "Gemma of 32 heads": PUBLISHED["google/gemma-2b-it"] | _WIDE,
    "StableLM of 32 heads, side by side": _STABLELM
    | _WIDE
    | {"num_key_value_heads": 32, "partial_rotary_factor": 1.0, "use_parallel_residual": True},
    "Qwen 2.5 with YaRN": _QWEN2
    | {
        "max_position_embeddings": 131072,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
    },
    "Qwen 3 with YaRN, as DeepSeek-R1-0528-Qwen3-8B": _QWEN3
    | {
        "max_position_embeddings": 131072,
        "rope_scaling": {
            "attn_factor": 0.8782488562869419,
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
            "rope_type": "yarn",
        },
    },
    "Llama with YaRN of its own kind": _LLAMA3
    | {
        "rope_scaling": {
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "factor": 8.0,
            "mscale": 0.7,
            "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        }
    },
    "Llama with biases, as granite-3b-code-instruct": _LLAMA
    | {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "Llama with dynamic scaling": _LLAMA | {"rope_scaling": {"factor": 2.0, "type": "dynamic"}},
    "GPT-NeoX with YaRN": _NEOX
    | {
        "rotary_pct": 0.5,
        "rope_scaling": {"attention_factor": 1.5, "factor": 4.0, "rope_type": "yarn"},
        "use_parallel_residual": True,
    },
    "StableLM with linear scaling": _STABLELM | {"rope_scaling": {"factor": 2.0, "type": "linear"}},
    "GPT-NeoX without biases, tied": _NEOX
    | {"attention_bias": False, "rotary_pct": 0.5, "tie_word_embeddings": True},
}
"""What no published model of the list has, and a config.json can say."""


def changed(config: Config, without: list[str], fields: Config) -> Config:
    """`config`, or its text_config where it has one, without some fields and with `fields` set."""
    if "text_config" in config:
        return config | {"text_config": changed(config["text_config"], without, fields)}
    return {key: value for key, value in config.items() if key not in without} | fields
