"""Published models by their shapes: facts without files."""

from pathlib import Path
from typing import Any

from engine.embedded.families.base import decoder_parameters
from engine.embedded.spec import DecoderSpec, LayerSpec
from engine.model.facts import ModelFacts
from engine.model.tensor_info import TensorInfo


def model(
    name: str,
    vocab: int,
    hidden: int,
    inter: int,
    layers: int,
    heads: int,
    kv: int,
    head_dim: int,
    **more: Any,
) -> ModelFacts:
    """Facts of a published model by its shapes, from weights in bf16."""
    window = more.get("window")
    spec = DecoderSpec(
        model_type=name,
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inter,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=head_dim,
        layers=(LayerSpec(rope_theta=1e4, window=window),) * layers,
        activation="silu",
        norm_eps=1e-6,
        attention_scale=1.0,
        rotary_dim=head_dim,
        tie_word_embeddings=more.get("tied", True),
        norm_placement="sandwich" if name.startswith("gemma3") else "pre",
        qk_norm="head" if name.startswith("gemma3") else None,
        qkv_layout="apart",
    )
    parameters = decoder_parameters(spec)
    tensors = {}
    for p in parameters:
        rows = p.shape[0] // len(p.sources)
        for source in p.sources:
            size = rows * (p.shape[1] if len(p.shape) > 1 else 1)
            tensors[source] = TensorInfo(
                name=source,
                shape=(rows, *p.shape[1:]),
                dtype="BF16",
                file=Path("m"),
                offset=0,
                nbytes=2 * size,
            )
    return ModelFacts(
        folder=Path("m"),
        model_type=name,
        architectures=(),
        spec=spec,
        parameters=parameters,
        tensors=tensors,
        dtype="BF16",
        max_context=more.get("context", 32768),
        window=window,
        tokenizer_files=("tokenizer.json",),
        tokenizer_bytes=1000,
        has_chat_template=more.get("template", True),
    )


GEMMA = model("gemma3_text", 262144, 640, 2048, 18, 4, 1, 256, window=512)
SMOL = model("llama", 49152, 576, 1536, 30, 9, 3, 64, context=8192)
LLAMA_1B = model("llama", 128256, 2048, 8192, 16, 32, 8, 64, context=131072)
TINY_LLAMA = model("llama", 32000, 2048, 5632, 22, 32, 4, 64, tied=False, context=2048)
