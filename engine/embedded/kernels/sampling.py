"""The functions that turn logits into a token, added to a module under the names WebLLM looks up.

    softmax_with_temperature(logits f32[1, 1, V], temperature f32[1]) -> probabilities f32[1, 1, V]
    argsort_probs(probabilities f32[1, V]) -> (sorted f32[1, V], indices i32[1, V]), largest first
    sample_with_top_p(sorted f32[1, V], indices i32[1, V], uniform f32[1], sample_indices i32[1],
                      top_p f32[1]) -> token i32[1]
    apply_logit_bias_inplace(logits f32[1, V], pos2seq i32[n], token_ids i32[n], bias f32[n])
    apply_penalty_inplace(logits f32[1, V], seq_ids i32[1], pos2seq i32[n], token_ids i32[n],
                          token_cnt i32[n], penalties f32[1, 3])
    apply_bitmask_inplace(logits f32[1, V], seq_ids i32[1], bitmask i32[1, ceil(V / 32)])

The last three change their logits and return them. There is one sequence, as in WebLLM: the indices
that choose among several (sample_indices, seq_ids, pos2seq) are always 0 and are not read.
"""

from collections.abc import Callable

import tvm
from tvm import relax

from engine.embedded.kernels import sampling_logits, sampling_probs, sort


def _tensor(shape: tuple[int | tvm.tirx.Var, ...], dtype: str = "float32") -> relax.TensorType:
    return relax.TensorType(shape, dtype)


class _Builder:
    """A module being extended, for one vocabulary and one kind of device."""

    def __init__(self, mod: tvm.IRModule, vocab_size: int, gpu: bool) -> None:
        self.builder = relax.BlockBuilder(mod)
        self.size, self.gpu = vocab_size, gpu

    def kernel(self, make: Callable[[int, bool], tvm.tirx.PrimFunc]) -> tvm.ir.GlobalVar:
        """The kernel that `make(vocab_size, gpu)` gives, as a function of the module."""
        return self.builder.add_func(make(self.size, self.gpu), make.__name__)

    def call(
        self,
        kernel: tvm.ir.GlobalVar,
        args: list[relax.Expr],
        out: relax.TensorType | list[relax.TensorType],
    ) -> relax.Var:
        """Emit a call of `kernel`."""
        return self.builder.emit(relax.op.call_tir(kernel, args, out))

    def softmax(self) -> None:
        partial, scale = (
            self.kernel(sampling_probs.softmax_partial),
            self.kernel(sampling_probs.softmax_scale),
        )
        shape = _tensor((1, 1, self.size))
        logits, temperature = relax.Var("logits", shape), relax.Var("temperature", _tensor((1,)))
        with self.builder.function("softmax_with_temperature", [logits, temperature]):
            with self.builder.dataflow():
                parts = _tensor((2, sampling_probs.tiles(self.size)))
                partials = self.call(partial, [logits, temperature], parts)
                out = self.builder.emit_output(
                    relax.op.call_tir(scale, [logits, temperature, partials], shape)
                )
            self.builder.emit_func_output(out)

    def argsort(self) -> None:
        runs = self.kernel(sort.sort_runs)
        kinds = [_tensor((1, self.size)), _tensor((1, self.size), "int32")]
        probs = relax.Var("probs", kinds[0])
        width = sort.RUN
        merge = self.kernel(sort.merge_runs) if width < self.size else None
        with self.builder.function("argsort_probs", [probs]):
            with self.builder.dataflow():
                found = self.call(runs, [probs], kinds)
                while width < self.size:
                    parts = [self.builder.emit(relax.TupleGetItem(found, i)) for i in range(2)]
                    args = [*parts, relax.prim_value(tvm.tirx.IntImm("int32", width))]
                    found = self.call(merge, args, kinds)
                    width *= 2
                out = self.builder.emit_output(found)
            self.builder.emit_func_output(out)

    def top_p(self) -> None:
        sums, pick = self.kernel(sampling_probs.tile_sums), self.kernel(sampling_probs.pick)
        probs = relax.Var("sorted_probs", _tensor((1, self.size)))
        indices = relax.Var("sorted_indices", _tensor((1, self.size), "int32"))
        uniform = relax.Var("uniform_samples", _tensor((1,)))
        rows = relax.Var("sample_indices", _tensor((1,), "int32"))
        top_p = relax.Var("top_p", _tensor((1,)))
        with self.builder.function("sample_with_top_p", [probs, indices, uniform, rows, top_p]):
            with self.builder.dataflow():
                count = sampling_probs.tiles(self.size)
                found = self.call(sums, [probs], [_tensor((count,)), _tensor((count, sort.THREADS))])
                partials = [self.builder.emit(relax.TupleGetItem(found, i)) for i in range(2)]
                args = [probs, indices, *partials, uniform, top_p]
                out = self.builder.emit_output(relax.op.call_tir(pick, args, _tensor((1,), "int32")))
            self.builder.emit_func_output(out)

    def inplace(
        self,
        name: str,
        make: Callable[[int, bool], tvm.tirx.PrimFunc],
        unread: list[relax.Var],
        read: list[relax.Var],
    ) -> None:
        """A function (logits, *unread, *read) that changes logits by the kernel f(logits, *read)."""
        kernel = self.kernel(make)
        shape = _tensor((1, self.size))
        logits = relax.Var("logits", shape)
        with self.builder.function(name, [logits, *unread, *read]):
            with self.builder.dataflow():
                out = self.builder.emit_output(relax.op.call_tir_inplace(kernel, [logits, *read], [0], shape))
            self.builder.emit_func_output(out)


def attach_sampling(mod: tvm.IRModule, vocab_size: int, target: tvm.target.Target) -> tvm.IRModule:
    """`mod` with the functions above for logits of width `vocab_size`, scheduled for `target`."""
    build = _Builder(mod, vocab_size, gpu=target.kind.name != "llvm")
    build.softmax()
    build.argsort()
    build.top_p()

    def several(name: str, dtype: str = "int32") -> relax.Var:
        return relax.Var(name, _tensor((count,), dtype))

    count = tvm.tirx.Var("n", "int64")
    build.inplace(
        "apply_logit_bias_inplace",
        sampling_logits.add_bias,
        [several("pos2seq_id")],
        [several("token_ids"), several("logit_bias", "float32")],
    )
    count = tvm.tirx.Var("n", "int64")
    build.inplace(
        "apply_penalty_inplace",
        sampling_logits.penalize,
        [relax.Var("seq_ids", _tensor((1,), "int32")), several("pos2seq_id")],
        [several("token_ids"), several("token_cnt"), relax.Var("penalties", _tensor((1, 3)))],
    )
    build.inplace(
        "apply_bitmask_inplace",
        sampling_logits.forbid,
        [relax.Var("seq_ids", _tensor((1,), "int32"))],
        [relax.Var("bitmask", _tensor((1, -(-vocab_size // 32)), "int32"))],
    )
    return build.builder.get()
