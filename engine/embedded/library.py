"""The model library as a relax module: every function a runtime looks up, and what it must know.

`embed`, `prefill`, `decode`, `create_tir_paged_kv_cache`, the samplers, and `_metadata`, with the
names and shapes that WebLLM 0.2.86 calls. Libraries for other targets are loaded by MLC's own engine:
they have several sequences at once, and more functions (docs/native-contract.md).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tvm
from tvm import relax, tirx
from tvm.target import Target

from engine.catalog import QUANTIZATIONS, Quantization
from engine.embedded.decoder import Decoder, attention_shape
from engine.embedded.families.registry import stated_decoder
from engine.embedded.kernels.kv_cache import emit_create_function
from engine.embedded.kernels.sampling import Rows, attach_sampling
from engine.embedded.spec import DecoderSpec, Parameter
from engine.embedded.stored import all_stored_tensors


@dataclass(frozen=True, kw_only=True)
class LibraryPlan:
    """What a library is compiled from; sizes in tokens, -1 where a window is not set."""

    spec: DecoderSpec
    parameters: tuple[Parameter, ...]
    quantization: Quantization
    context_window_size: int
    sliding_window_size: int
    attention_sink_size: int
    prefill_chunk_size: int
    max_batch_size: int
    active_vocab_size: int


def plan_of(config: Mapping[str, Any]) -> LibraryPlan:
    """The plan that a complete mlc-chat-config.json states. Raises UsageError as `stated_decoder` does."""
    family, spec = stated_decoder(config)
    return LibraryPlan(
        spec=spec,
        parameters=family.parameters(spec),
        quantization=QUANTIZATIONS[config["quantization"]],
        context_window_size=config["context_window_size"],
        sliding_window_size=config["sliding_window_size"],
        attention_sink_size=config.get("attention_sink_size", -1),
        prefill_chunk_size=config["prefill_chunk_size"],
        max_batch_size=config.get("max_batch_size", 1),
        active_vocab_size=config.get("active_vocab_size", spec.vocab_size),
    )


def cache_elements(plan: LibraryPlan) -> int:
    """What the keys and values of a layer hold, where each sequence has the most tokens.

    MLC's engine gives its cache no more, unless it is told to by somebody.
    """
    tokens = plan.max_batch_size * max(plan.context_window_size, plan.sliding_window_size)
    return 2 * tokens * plan.spec.num_key_value_heads * plan.spec.head_dim


def longrope_warning(plan: LibraryPlan) -> str | None:
    """What a longrope model does not do beyond its original context, None for all others."""
    for scaling in (layer.rope_scaling for layer in plan.spec.layers):
        if scaling is not None and scaling.rope_type == "longrope":
            original = scaling.original_max_position_embeddings
            if plan.context_window_size > original:
                return (
                    f"A context of {plan.context_window_size} tokens is above the {original} that the model "
                    f"was first trained with, so its long rope factors are used throughout; in chats that "
                    f"stay below {original}, --context-window-size {original} answers better."
                )
    return None


def build_module(plan: LibraryPlan, target: Target) -> tvm.IRModule:
    """The module before lowering; `_metadata` is added after memory is planned (`lower.py`)."""
    bb = relax.BlockBuilder()
    spec, tokens, one = plan.spec, tirx.Var("seq_len", "int64"), tirx.const(1, "int64")
    # WebLLM has one conversation and calls none of what is for several.
    several = target.kind.name != "webgpu"
    _emit_embed(bb, plan, target)
    _emit_step(bb, "prefill", plan, target, shape=(one, tokens), take="last")
    _emit_step(bb, "decode", plan, target, shape=(one, one), take="all")
    if several:
        _emit_alloc_embedding(bb, plan)
        _emit_step(bb, "batch_prefill", plan, target, shape=(one, tokens), take="positions")
        _emit_step(bb, "batch_decode", plan, target, shape=(tirx.Var("batch_size", "int64"), one), take="all")
    shape = attention_shape(spec, plan.quantization)
    emit_create_function(bb, "create_tir_paged_kv_cache", shape, len(spec.layers), target)
    gpu = target.kind.name != "llvm"
    rows = Rows(width=spec.vocab_size, active=plan.active_vocab_size, gpu=gpu, several=several)
    return attach_sampling(bb.finalize(), rows, plan.max_batch_size)


def _weights(plan: LibraryPlan) -> relax.Var:
    """The parameter that holds all stored tensors, in order."""
    stored = all_stored_tensors(plan.parameters, plan.quantization)
    fields = [relax.TensorType(t.shape, t.dtype) for t in stored]
    return relax.Var("packed_params", relax.TupleType(fields))


def _decoder(bb: relax.BlockBuilder, plan: LibraryPlan, target: Target, weights: relax.Var) -> Decoder:
    return Decoder(
        bb,
        weights,
        spec=plan.spec,
        parameters=plan.parameters,
        quantization=plan.quantization,
        target=target,
        context=plan.context_window_size,
    )


def _bounds(plan: LibraryPlan) -> dict[str, Any]:
    # The planner reserves for the largest chunk and the most sequences, so that no step allocates.
    bounds = {"seq_len": plan.prefill_chunk_size, "batch_size": plan.max_batch_size}
    return {"tir_var_upper_bound": bounds}


def _emit_embed(bb: relax.BlockBuilder, plan: LibraryPlan, target: Target) -> None:
    """embed(ids int32 [n], params) -> float32 [n, hidden]."""
    ids = relax.Var("input_ids", relax.TensorType((tirx.Var("seq_len", "int64"),), "int32"))
    weights = _weights(plan)
    with bb.function("embed", [ids, weights], attrs=_bounds(plan)):
        with bb.dataflow():
            out = bb.emit_output(_decoder(bb, plan, target, weights).embed(ids))
        bb.emit_func_output(out)


def _emit_alloc_embedding(bb: relax.BlockBuilder, plan: LibraryPlan) -> None:
    """alloc_embedding_tensor() -> float32 [chunk, hidden], uninitialized, as `embed` gives it."""
    with bb.function("alloc_embedding_tensor", []):
        shape = relax.ShapeExpr([plan.prefill_chunk_size, plan.spec.hidden_size])
        bb.emit_func_output(bb.emit(relax.op.builtin.alloc_tensor(shape, "float32", 0)))


def _emit_step(
    bb: relax.BlockBuilder,
    name: str,
    plan: LibraryPlan,
    target: Target,
    *,
    shape: tuple[tirx.Expr, tirx.Expr],
    take: Literal["last", "positions", "all"],
) -> None:
    """name(embedded float32 [*shape, hidden][, positions int32 [b]], cache, params) -> (logits, cache).

    Logits are those after the rows that are taken: the last, float32 [1, 1, vocab], those at
    `positions`, [1, b, vocab], or all of them, [*shape, vocab].
    """
    hidden, vocab = plan.spec.hidden_size, plan.spec.vocab_size
    embedded = relax.Var("input_embed", relax.TensorType((*shape, hidden), "float32"))
    count = tirx.Var("batch_size", "int64")
    positions = relax.Var("logit_positions", relax.TensorType((count,), "int32"))
    cache = relax.Var("paged_kv_cache", relax.AnyType())
    weights = _weights(plan)
    params = [embedded, *([positions] if take == "positions" else []), cache, weights]
    with bb.function(name, params, attrs=_bounds(plan)):
        with bb.dataflow():
            decoder = _decoder(bb, plan, target, weights)
            x = bb.emit(relax.op.reshape(embedded, (shape[0] * shape[1], hidden)))
            x, out_shape = decoder.forward(x, cache), shape
            if take == "last":
                x, out_shape = decoder.last_row(x), (1, 1)
            elif take == "positions":
                x, out_shape = decoder.rows_at(x, positions), (1, count)
            logits = bb.emit(relax.op.reshape(decoder.logits(x), (*out_shape, vocab)))
            out = bb.emit_output(relax.Tuple([logits, cache]))
        bb.emit_func_output(out)


def metadata(plan: LibraryPlan, memory_usage: Mapping[str, int]) -> str:
    """The JSON that `_metadata` returns: what WebLLM reads, and what mlc_llm's tools read.

    `memory_usage` is the bytes of temporaries that each function plans.
    """
    stored = all_stored_tensors(plan.parameters, plan.quantization)
    return json.dumps(
        {
            "model_type": plan.spec.model_type,
            "quantization": plan.quantization.name,
            "context_window_size": plan.context_window_size,
            "sliding_window_size": plan.sliding_window_size,
            "attention_sink_size": plan.attention_sink_size,
            "prefill_chunk_size": plan.prefill_chunk_size,
            "tensor_parallel_shards": 1,
            "pipeline_parallel_stages": 1,
            "disaggregation": False,
            "kv_state_kind": "kv_cache",
            "kv_cache": {
                "num_hidden_layers": len(plan.spec.layers),
                "num_attention_heads": plan.spec.num_attention_heads,
                "num_key_value_heads": plan.spec.num_key_value_heads,
                "head_dim": plan.spec.head_dim,
            },
            "max_batch_size": plan.max_batch_size,
            "active_vocab_size": plan.active_vocab_size,
            "model_task": "chat",
            "params": [
                {
                    "name": t.name,
                    "shape": list(t.shape),
                    "dtype": t.dtype,
                    "preprocs": [],
                    "pipeline_stages": [0],
                }
                for t in stored
            ],
            "memory_usage": dict(memory_usage),
        }
    )


def with_metadata(mod: tvm.IRModule, text: str) -> tvm.IRModule:
    """`mod` with a function `_metadata` that returns `text`."""
    bb = relax.BlockBuilder(mod)
    with bb.function("_metadata", []):
        bb.emit_func_output(tvm.ir.StringImm(text))
    return bb.get()
