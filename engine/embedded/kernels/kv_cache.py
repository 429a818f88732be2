"""TVM's paged KV cache with attention kernels of our own.

The cache runs with every layer "mha" and no rope (RopeMode.NONE): windows and rotary positions are
the kernels' and the model's business. Of the functions that its constructor takes, those for token trees
and latent attention stay empty; nothing here calls them. Of the two pairs that read pages, one for a
rolling cache and one for all others, a library has its own.
"""

import tvm
from tvm import relax
from tvm.relax.frontend.nn.llm import _page_kernels as pages
from tvm.relax.frontend.nn.llm.kv_cache import AttnKind, RopeMode
from tvm.script import tirx as T
from tvm.target import Target

from engine.embedded.kernels import script
from engine.embedded.kernels.attention import cpu, signatures
from engine.embedded.kernels.attention import gpu as gpu_schedule
from engine.embedded.kernels.attention.shape import AttentionShape
from engine.embedded.kernels.simd import Simd

CREATE_ARGUMENTS = (
    "max_batch_size",
    "max_total_seq_len",
    "prefill_chunk_size",
    "page_size",
    "support_sliding_window",
)


def _split_qkv(shape: AttentionShape) -> tvm.tirx.PrimFunc:
    """Part the joined heads into q, k and v; the place where TVM would apply rope."""
    hq, hkv, d, dtype = shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.dtype

    @script.prim_func(private=True, s_tir=True)
    def split_qkv(
        vqkv: T.handle, vpos: T.handle, vq: T.handle, vk: T.handle, vv: T.handle, apply_rope: T.int64
    ):
        T.func_attr({"tirx.noalias": True})
        n = T.int64()
        offset = T.int64()
        qkv = T.match_buffer(vqkv, (n, hq + 2 * hkv, d), dtype)
        position = T.match_buffer(vpos, (n,), "int32", elem_offset=offset)
        q = T.match_buffer(vq, (n, hq, d), dtype)
        k = T.match_buffer(vk, (n, hkv, d), dtype)
        v = T.match_buffer(vv, (n, hkv, d), dtype)
        for i, h, x in T.grid(n, hq + 2 * hkv, d):
            with T.sblock("split"):
                vi, vh, vx = T.axis.remap("SSS", [i, h, x])
                if vh < hq:
                    q[vi, vh, vx] = qkv[vi, vh, vx]
                elif vh < hq + hkv:
                    k[vi, vh - hq, vx] = qkv[vi, vh, vx]
                else:
                    v[vi, vh - hq - hkv, vx] = qkv[vi, vh, vx]

    return split_qkv


def _zero(bb: relax.BlockBuilder, dtype: str) -> relax.Expr:
    if dtype != "bfloat16":
        return relax.op.zeros((), dtype)
    # No GPU language has it: TVM writes a conversion that takes an address, and a literal has none.
    return relax.op.astype(bb.emit(relax.op.zeros((), "float32")), dtype)


def emit_create_function(
    bb: relax.BlockBuilder, name: str, shape: AttentionShape, num_layers: int, target: Target
) -> None:
    """Add the relax function `name` that makes a cache.

    It takes five shapes of one element each (CREATE_ARGUMENTS), as MLC's and WebLLM's runtimes call it.
    A library whose cache rolls always makes one that can, whatever the last of them says.
    """
    sizes = [tvm.tirx.Var(argument, "int64") for argument in CREATE_ARGUMENTS]
    params = [relax.Var(f"{v.name}_", relax.ShapeType([v])) for v in sizes]
    gpu = target.kind.name != "llvm"
    if gpu:
        prefill, decode = gpu_schedule.prefill_body(shape), gpu_schedule.decode_body(shape)
        merge = signatures.merge(shape, gpu_schedule.merge_body(shape))
    else:
        simd = Simd.of(target)
        prefill, decode = cpu.prefill_body(shape, simd), cpu.decode_body(shape, simd)
        merge = signatures.merge(shape, cpu.merge_body(shape))
    hkv, d, dtype, page_size = shape.num_kv_heads, shape.head_dim, shape.dtype, shape.page_size

    with bb.function(name, params):

        def tir(func: tvm.tirx.PrimFunc, symbol: str) -> relax.Tuple:
            return relax.Tuple([tvm.ir.StringImm("tirx"), bb.add_func(func, symbol)])

        none = relax.Tuple([])
        over_pages = [
            tir(signatures.paged_prefill(shape, prefill), "attention_prefill_paged"),
            tir(signatures.paged_decode(shape, decode), "attention_decode_paged"),
        ]
        if shape.rolling is not None:
            sizes = [*sizes[:-1], tvm.tirx.const(1, "int64")]
        if gpu:
            copy_page = pages._copy_single_page(hkv, page_size, d, dtype, target)
            compact = pages._compact_kv_copy(hkv, d, dtype, target)
        else:
            copy_page = pages._copy_single_page_cpu(hkv, page_size, d, dtype)
            compact = pages._compact_kv_copy_cpu(hkv, d, dtype)
        cache = bb.emit(
            relax.call_pure_packed(
                "vm.builtin.paged_attention_kv_cache_create",
                relax.ShapeExpr(list(sizes)),
                relax.ShapeExpr([0, num_layers]),  # one pipeline stage holds all layers
                relax.prim_value(shape.num_heads),
                relax.prim_value(hkv),
                relax.prim_value(d),
                relax.prim_value(d),
                relax.ShapeExpr([int(AttnKind.MHA)] * num_layers),
                relax.prim_value(False),  # no disaggregation
                relax.prim_value(RopeMode.NONE),
                relax.prim_value(1),  # rope scale and theta, unused without rope
                relax.prim_value(10000),
                relax.prim_value(0),  # rope_ext_factors
                _zero(bb, dtype),  # of which the cache takes device and dtype
                bb.add_func(pages._kv_cache_transpose_append(hkv, d, dtype), "kv_cache_append"),
                relax.prim_value(0),  # the append of latent attention
                tir(signatures.ragged_prefill(shape, prefill), "attention_prefill_ragged"),
                *(over_pages if shape.rolling is None else [none, none]),
                *([none, none] if shape.rolling is None else over_pages),
                none,  # token trees: with pages, without
                none,
                none,  # latent attention
                relax.Tuple([bb.add_func(merge, "attention_merge")]),
                bb.add_func(_split_qkv(shape), "split_qkv"),
                bb.add_func(copy_page, "kv_cache_copy_single_page"),
                bb.add_func(pages._kv_cache_debug_get_kv(num_layers, hkv, d, dtype), "kv_cache_debug_get_kv"),
                bb.add_func(compact, "kv_cache_compact_kv_copy"),
                ty_args=relax.AnyType(),
            )
        )
        bb.emit_func_output(cache)
