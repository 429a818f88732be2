"""Attention kernels of our own for TVM's paged KV cache.

They go to `vm.builtin.paged_attention_kv_cache_create` in place of TVM's and keep its calling
convention (`runtime/vm/attn_backend.h`). They are told absolute positions, so one mask serves every
layer and every call: key p is visible to query q if p <= q and, in a layer with a window W, q - p < W.
The runtime has no argument for "this layer has a window": the sign of `sm_scale` says it.

State is kept in base 2 as (maximum, sum), so that lse = maximum + log2(sum); a row that sees no key
has sum 0, output 0 and lse NONE, which the merge weighs with 0.

`signatures` states the calling convention once, around a body; `cpu` and `gpu` provide the bodies.
"""
