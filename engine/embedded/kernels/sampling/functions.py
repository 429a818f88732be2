"""The functions that turn logits into a token, added to a module under the names that runtimes look up.

    softmax_with_temperature(logits f32[b, 1, V], temperature f32[b]) -> probabilities f32[b, 1, V]
    argsort_probs(probabilities f32[b, V]) -> (sorted f32[b, V], indices i32[b, V]), largest first
    sample_with_top_p(sorted f32[b, V], indices i32[b, V], uniform f32[s], sample_indices i32[s],
                      top_p f32[b]) -> tokens i32[s]
    apply_logit_bias_inplace(logits f32[b, V], pos2seq i32[n], token_ids i32[n], bias f32[n])
    apply_penalty_inplace(logits f32[b, V], seq_ids i32[r], pos2seq i32[n], token_ids i32[n],
                          token_cnt i32[n], penalties f32[r, 3])
    apply_bitmask_inplace(logits f32[b, V], seq_ids i32[r], bitmask i32[b, ceil(V / 32)])

The last three change their logits and return them. WebLLM has one row, b = s = r = 1, and indices that
are always 0. For MLC's engine there are several rows, and three more functions:

    multinomial_from_uniform(probabilities f32[b, V], uniform f32[s], sample_indices i32[s]) -> tokens i32[s]
    sampler_take_probs(probabilities f32[b, V], indices i32[b, V], sample_indices i32[s], tokens i32[s],
                       offsets i32[k]) -> (of the tokens f32[s], at the offsets f32[k], their tokens i32[k])
    renormalize_by_top_p(probabilities f32[b, V], top_p f32[b], pivots f32[b, 3]) -> probabilities f32[b, V]
"""

from collections.abc import Callable, Sequence

import tvm
from tvm import relax

from engine.embedded.kernels.sampling import logits, pick, renormalize, softmax, sort, take
from engine.embedded.kernels.sampling.rows import THREADS, Rows, tiles

PIVOTS = 3
"""First guesses that MLC's engine passes to renormalize_by_top_p; our search needs none."""
OFFSETS = 5
"""Alternatives of a token that MLC's engine asks for at most (`top_logprobs`)."""


def attach_sampling(mod: tvm.IRModule, rows: Rows, most: int) -> tvm.IRModule:
    """`mod` with the functions above for `rows`, of which there are `most` at most.

    Those for MLC's engine are added where there may be several rows.
    """
    build = _Builder(mod, rows, most)
    build.softmax()
    build.argsort()
    build.sample_with_top_p()
    build.apply_logit_bias()
    build.apply_penalty()
    build.apply_bitmask()
    if rows.several:
        build.multinomial_from_uniform()
        build.sampler_take_probs()
        build.renormalize_by_top_p()
    return build.builder.get()


class _Builder:
    """A module being extended; the sizes of rows are those of the function that is built."""

    def __init__(self, mod: tvm.IRModule, rows: Rows, most: int) -> None:
        self.builder = relax.BlockBuilder(mod)
        self.rows, self.size = rows, rows.width
        # How many tokens an apply_* function changes has no bound, and plans nothing.
        self.bounds = {"batch_size": most, "num_samples": most, "num_positions": OFFSETS * most}

    def kernel(self, make: Callable[[Rows], tvm.tirx.PrimFunc]) -> tvm.ir.GlobalVar:
        """The kernel that `make` gives, as a function of the module."""
        return self.builder.add_func(make(self.rows), make.__name__)

    def function(
        self,
        name: str,
        params: Sequence[relax.Var],
        emit: Callable[[], relax.Expr],
    ) -> None:
        """Add `name`, whose result is what `emit` gives."""
        with self.builder.function(name, list(params), attrs={"tir_var_upper_bound": self.bounds}):
            with self.builder.dataflow():
                out = self.builder.emit_output(emit())
            self.builder.emit_func_output(out)

    def call(
        self,
        make: Callable[[Rows], tvm.tirx.PrimFunc],
        args: Sequence[relax.Expr],
        out: relax.TensorType | list[relax.TensorType],
    ) -> relax.Expr:
        """A call of the kernel that `make` gives."""
        return relax.op.call_tir(self.kernel(make), list(args), out)

    def parts(self, found: relax.Expr) -> list[relax.Expr]:
        """Both results of a kernel."""
        found = self.builder.emit(found)
        return [self.builder.emit(relax.TupleGetItem(found, i)) for i in range(2)]

    def softmax(self) -> None:
        b = self.rows.count("batch_size")
        shape = _tensor(b, 1, self.size)
        params = [relax.Var("logits", shape), relax.Var("temperature", _tensor(b))]

        def emit() -> relax.Expr:
            parts = _tensor(b, 2 * tiles(self.rows.active))
            partials = self.builder.emit(self.call(softmax.softmax_partial, params, parts))
            return self.call(softmax.softmax_scale, [*params, partials], shape)

        self.function("softmax_with_temperature", params, emit)

    def argsort(self) -> None:
        b = self.rows.count("batch_size")
        kinds = [_tensor(b, self.size), _tensor(b, self.size, dtype="int32")]
        probs = relax.Var("probs", kinds[0])

        def emit() -> relax.Expr:
            found, width = self.call(sort.sort_runs, [probs], kinds), sort.RUN
            merge = self.kernel(sort.merge_runs) if width < self.size else None
            while width < self.size:
                args = [*self.parts(found), relax.prim_value(tvm.tirx.IntImm("int32", width))]
                found = relax.op.call_tir(merge, args, kinds)
                width *= 2
            return found

        self.function("argsort_probs", [probs], emit)

    def sums(self, probs: relax.Expr, b: tvm.tirx.Var | int) -> list[relax.Expr]:
        """The sums of tiles and of their parts, for `pick`."""
        count = tiles(self.size)
        return self.parts(
            self.call(pick.tile_sums, [probs], [_tensor(b, count), _tensor(b, count * THREADS)])
        )

    def sample_with_top_p(self) -> None:
        b, s = self.rows.count("batch_size"), self.rows.count("num_samples")
        probs = relax.Var("sorted_probs", _tensor(b, self.size))
        indices = relax.Var("sorted_indices", _tensor(b, self.size, dtype="int32"))
        uniform = relax.Var("uniform_samples", _tensor(s))
        which = relax.Var("sample_indices", _tensor(s, dtype="int32"))
        top_p = relax.Var("top_p", _tensor(b))

        def emit() -> relax.Expr:
            args = [probs, indices, *self.sums(probs, b), uniform, *self.if_several(which), top_p]
            return self.call(pick.pick, args, _tensor(s, dtype="int32"))

        self.function("sample_with_top_p", [probs, indices, uniform, which, top_p], emit)

    def multinomial_from_uniform(self) -> None:
        b, s = self.rows.count("batch_size"), self.rows.count("num_samples")
        probs, uniform = relax.Var("probs", _tensor(b, self.size)), relax.Var("uniform_samples", _tensor(s))
        which = relax.Var("sample_indices", _tensor(s, dtype="int32"))

        def emit() -> relax.Expr:
            args = [probs, *self.sums(probs, b), uniform, *self.if_several(which)]
            return self.call(pick.pick_unsorted, args, _tensor(s, dtype="int32"))

        self.function("multinomial_from_uniform", [probs, uniform, which], emit)

    def sampler_take_probs(self) -> None:
        b, s = self.rows.count("batch_size"), self.rows.count("num_samples")
        k = self.rows.count("num_positions")
        params = [
            relax.Var("probs", _tensor(b, self.size)),
            relax.Var("sorted_indices", _tensor(b, self.size, dtype="int32")),
            relax.Var("sample_indices", _tensor(s, dtype="int32")),
            relax.Var("sampling_result", _tensor(s, dtype="int32")),
            relax.Var("top_prob_offsets", _tensor(k, dtype="int32")),
        ]
        kinds = [_tensor(s), _tensor(k), _tensor(k, dtype="int32")]
        self.function("sampler_take_probs", params, lambda: self.call(take.take_probs, params, kinds))

    def renormalize_by_top_p(self) -> None:
        b = self.rows.count("batch_size")
        probs, top_p = relax.Var("probs", _tensor(b, self.size)), relax.Var("top_p", _tensor(b))
        params = [probs, top_p, relax.Var("init_pivots", _tensor(b, PIVOTS))]
        self.function(
            "renormalize_by_top_p",
            params,
            lambda: self.call(renormalize.renormalize, [probs, top_p], _tensor(b, self.size)),
        )

    def if_several(self, *indices: relax.Var) -> list[relax.Var]:
        """The indices of rows that kernels read: none where there is one row."""
        return list(indices) if self.rows.several else []

    def apply_logit_bias(self) -> None:
        b, n = self.rows.count("batch_size"), tvm.tirx.Var("n", "int64")
        which = relax.Var("pos2seq_id", _tensor(n, dtype="int32"))
        token = relax.Var("token_ids", _tensor(n, dtype="int32"))
        bias = relax.Var("logit_bias", _tensor(n))
        self.inplace(
            "apply_logit_bias_inplace",
            logits.add_bias,
            relax.Var("logits", _tensor(b, self.size)),
            [which, token, bias],
            [*self.if_several(which), token, bias],
        )

    def apply_penalty(self) -> None:
        b, r = self.rows.count("batch_size"), self.rows.count("num_seq")
        n = tvm.tirx.Var("n", "int64")
        rows = [relax.Var("seq_ids", _tensor(r, dtype="int32"))]
        rows += [relax.Var("pos2seq_id", _tensor(n, dtype="int32"))]
        rest = [relax.Var(name, _tensor(n, dtype="int32")) for name in ("token_ids", "token_cnt")]
        rest += [relax.Var("penalties", _tensor(r, 3))]
        self.inplace(
            "apply_penalty_inplace",
            logits.penalize,
            relax.Var("logits", _tensor(b, self.size)),
            [*rows, *rest],
            [*self.if_several(*rows), *rest],
        )

    def apply_bitmask(self) -> None:
        b, r = self.rows.count("batch_size"), self.rows.count("num_seq")
        which = relax.Var("seq_ids", _tensor(r, dtype="int32"))
        mask = relax.Var("bitmask", _tensor(b, -(-self.size // 32), dtype="int32"))
        self.inplace(
            "apply_bitmask_inplace",
            logits.forbid,
            relax.Var("logits", _tensor(b, self.size)),
            [which, mask],
            [*self.if_several(which), mask],
        )

    def inplace(
        self,
        name: str,
        make: Callable[[Rows], tvm.tirx.PrimFunc],
        changed: relax.Var,
        params: list[relax.Var],
        read: list[relax.Var],
    ) -> None:
        """A function (changed, *params) that changes its first argument by the kernel f(changed, *read)."""
        kernel = self.kernel(make)
        self.function(
            name,
            [changed, *params],
            lambda: relax.op.call_tir_inplace(kernel, [changed, *read], [0], changed.ty),
        )


def _tensor(*shape: int | tvm.tirx.Var, dtype: str = "float32") -> relax.TensorType:
    return relax.TensorType(shape, dtype)
