"""One decoder-only transformer, as relax expressions, from a DecoderSpec.

Activations are float32 and two-dimensional, [tokens, features]; weights and the KV cache have the
dtype of the quantization.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tvm import relax, te, tirx
from tvm.target import Target

from engine.catalog import Quantization
from engine.embedded.kernels import elementwise, linear, norm, rope
from engine.embedded.kernels.attention.shape import AttentionShape
from engine.embedded.kernels.simd import Simd
from engine.embedded.spec import DecoderSpec, LayerSpec, Parameter
from engine.embedded.stored import layout, stored_tensors
from engine.errors import UsageError


def attention_shape(spec: DecoderSpec, quantization: Quantization) -> AttentionShape:
    """The attention that every layer of `spec` has.

    Raises UsageError where windowed layers differ in their window: the kernels know one.
    """
    windows = {layer.window for layer in spec.layers if layer.window is not None}
    if len(windows) > 1:
        raise UsageError(
            f"The layers of this model have different attention windows: {sorted(windows)} tokens.",
            why="The embedded compiler supports one window size in a model.",
        )
    return AttentionShape(
        num_heads=spec.num_attention_heads,
        num_kv_heads=spec.num_key_value_heads,
        head_dim=spec.head_dim,
        dtype=quantization.model_dtype,
        window=next(iter(windows), None),
        softcap=spec.attention_softcap,
        rolling=spec.rolling,
        rope_theta=spec.layers[0].rope_theta,
    )


def _is_one(tokens: tirx.Expr) -> bool:
    return isinstance(tokens, tirx.IntImm) and int(tokens) == 1


class Decoder:
    """Emits the decoder into the function that `bb` is building, with `weights` as its parameters.

    `weights` is the relax tuple of all stored tensors in the order of `parameters`, `context` the
    number of tokens that a sequence may have.
    """

    def __init__(
        self,
        bb: relax.BlockBuilder,
        weights: relax.Expr,
        *,
        spec: DecoderSpec,
        parameters: Sequence[Parameter],
        quantization: Quantization,
        target: Target,
        context: int,
    ) -> None:
        self.bb = bb
        self.spec = spec
        self.quantization = quantization
        self.context = context
        self.gpu = target.kind.name != "llvm"
        self.simd = None if self.gpu else Simd.of(target)
        self.weights = weights
        self.parameters = {p.role: p for p in parameters}
        self.index: dict[str, int] = {}
        for parameter in parameters:
            for stored in stored_tensors(parameter, quantization):
                self.index[stored.name] = len(self.index)

    def _stored(self, role: str) -> list[relax.Expr]:
        """The stored tensors of the parameter with that role: one, or words and scales."""
        parameter = self.parameters[role]
        return [
            self.bb.emit(relax.TupleGetItem(self.weights, self.index[t.name]))
            for t in stored_tensors(parameter, self.quantization)
        ]

    def _bias(self, role: str) -> list[relax.Expr]:
        """The bias that belongs to the parameter with that role, if it has one."""
        return self._stored(f"{role}.bias") if f"{role}.bias" in self.parameters else []

    def _call(
        self, name: str, kernel: tirx.PrimFunc, inputs: list[relax.Expr], out: relax.TensorType
    ) -> relax.Expr:
        """Call `kernel`, which the module holds once however often it is called."""
        return self.bb.emit(relax.call_tir(self.bb.add_func(kernel, name), inputs, out))

    def _te(
        self, expression: Callable[..., te.Tensor], *inputs: relax.Expr, **settings: object
    ) -> relax.Expr:
        """Call a tensor expression; `settings` are constants of its own, not of TVM."""
        name = expression.__name__
        return self.bb.emit_te(partial(expression, **settings), *inputs, primfunc_name_hint=name)

    def embed(self, ids: relax.Expr) -> relax.Expr:
        """int32 [n] to float32 [n, hidden]; learned positions are not added here."""
        return self._rows(ids, "embedding", self.spec.embedding_scale)

    def _rows(self, indices: relax.Expr, role: str, scale: float) -> relax.Expr:
        return self._te(
            elementwise.embedding,
            indices,
            *self._stored(role),
            hidden_size=self.spec.hidden_size,
            quantization=self.quantization,
            scale=scale,
        )

    def forward(self, x: relax.Expr, cache: relax.Expr) -> relax.Expr:
        """All layers on float32 [n, hidden], appending to `cache`; the final norm is not applied."""
        n = x.ty.shape[0]
        positions = self.bb.emit(
            relax.call_pure_packed(
                "vm.builtin.attention_kv_cache_get_query_positions",
                cache,
                ty_args=relax.TensorType((n,), "int32"),
            )
        )
        if self.spec.position_embeddings == "learned":
            x = self._te(elementwise.add, x, self._rows(positions, "positions", 1.0))
        tables: dict[tuple[object, ...], list[relax.Expr]] = {}
        for i, layer in enumerate(self.spec.layers):
            key = (layer.rope_theta, layer.rope_scaling)
            if key not in tables:
                tables[key] = self._rope_table(positions, layer)
            x = self._layer(i, x, tables[key], cache)
        return x

    def last_row(self, x: relax.Expr) -> relax.Expr:
        """The last row of float32 [n, hidden]: [1, hidden]."""
        return self._te(elementwise.last_row, x)

    def rows_at(self, x: relax.Expr, positions: relax.Expr) -> relax.Expr:
        """Rows `positions` (int32 [b]) of float32 [n, hidden]: [b, hidden]."""
        return self._te(elementwise.rows_at, x, positions)

    def logits(self, x: relax.Expr) -> relax.Expr:
        """The logits after each row of float32 [n, hidden]: float32 [n, vocab]."""
        spec = self.spec
        out = self._linear(self._norm(x, "norm"), "embedding" if spec.tie_word_embeddings else "head")
        bias = self._bias("head")
        if spec.logit_softcap is not None:
            return self._te(elementwise.softcap, out, *bias, cap=spec.logit_softcap)
        return self._te(elementwise.add, out, *bias) if bias else out

    def _rope_table(self, positions: relax.Expr, layer: LayerSpec) -> list[relax.Expr]:
        """The table of that layer, none where nothing is rotated, or attention does it."""
        rotary_dim, scaling = self.spec.rotary_dim, layer.rope_scaling
        if rotary_dim == 0 or self.spec.rolling is not None:
            return []
        frequencies = relax.const(rope.inverse_frequencies(rotary_dim, layer, self.context))
        factor = 1.0 if scaling is None else scaling.attention_factor
        return [self._te(rope.rope_table, positions, frequencies, factor=factor)]

    def _layer(self, i: int, x: relax.Expr, table: list[relax.Expr], cache: relax.Expr) -> relax.Expr:
        spec, prefix = self.spec, f"layers.{i}."
        first = x if spec.norm_placement == "post" else self._norm(x, f"{prefix}attention_norm")
        attended = self._attention(i, first, table, cache)
        if spec.parallel_residual:
            second = first if spec.shared_norm else self._norm(x, f"{prefix}mlp_norm")
            biases = [*self._bias(f"{prefix}attention_out"), *self._bias(f"{prefix}down")]
            return self._te(elementwise.add, x, attended, self._mlp(second, prefix), *biases)
        x = self._joined(x, attended, self._bias(f"{prefix}attention_out"), f"{prefix}attention_out_norm")
        second = x if spec.norm_placement == "post" else self._norm(x, f"{prefix}mlp_norm")
        out = self._mlp(second, prefix)
        return self._joined(x, out, self._bias(f"{prefix}down"), f"{prefix}mlp_out_norm")

    def _joined(self, x: relax.Expr, out: relax.Expr, bias: list[relax.Expr], norm_role: str) -> relax.Expr:
        """X + `out` + `bias`, with a norm of the latter two where the model has one behind a sublayer."""
        if self.spec.norm_placement == "pre":
            return self._te(elementwise.add, x, out, *bias)
        if bias:
            out = self._te(elementwise.add, out, *bias)
        return self._norm(out, norm_role, residual=x)

    def _attention(self, i: int, x: relax.Expr, table: list[relax.Expr], cache: relax.Expr) -> relax.Expr:
        """The sublayer but for the bias of its last product."""
        spec, prefix = self.spec, f"layers.{i}."
        n, heads, d = x.ty.shape[0], spec.num_attention_heads, spec.head_dim
        dtype = self.quantization.model_dtype
        roles = ("q", "k", "v") if spec.qkv_layout == "apart" else ("qkv",)
        inputs = [self._linear(x, f"{prefix}{role}") for role in roles]
        for role in roles:
            inputs += self._bias(f"{prefix}{role}")
        inputs += table
        if spec.qk_norm is not None:
            inputs += [*self._stored(f"{prefix}q_norm"), *self._stored(f"{prefix}k_norm")]
        joined = heads + 2 * spec.num_key_value_heads
        unturned = spec if spec.rolling is None else replace(spec, rotary_dim=0)
        kernel = rope.rotate_qkv(unturned, weight_dtype=dtype, out_dtype=dtype, gpu=self.gpu)
        qkv = self._call("rotate_qkv", kernel, inputs, relax.TensorType((n, joined, d), dtype))
        # The sign tells our kernels that this layer has a window.
        windowed = spec.layers[i].window is not None
        scale = -spec.attention_scale if windowed else spec.attention_scale
        out = self.bb.emit(
            relax.call_dps_packed(
                "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
                [cache, relax.prim_value(i), relax.prim_value(scale), qkv],
                out_ty=relax.TensorType((n, heads, d), dtype),
            )
        )
        out = self.bb.emit(relax.op.reshape(out, (n, heads * d)))
        if dtype != "float32":
            out = self.bb.emit(relax.op.astype(out, "float32"))
        return self._linear(out, f"{prefix}attention_out")

    def _mlp(self, x: relax.Expr, prefix: str) -> relax.Expr:
        """The sublayer but for the bias of its last product."""
        expression, role = (
            (elementwise.gated, "gate_up") if self.spec.gated_mlp else (elementwise.activated, "up")
        )
        product = self._linear(x, f"{prefix}{role}")
        bias = self._bias(f"{prefix}{role}")
        inner = self._te(expression, product, *bias, activation=self.spec.activation)
        return self._linear(inner, f"{prefix}down")

    def _linear(self, x: relax.Expr, role: str) -> relax.Expr:
        """float32 [n, in_features] to float32 [n, out_features] by the stored matrix of that role."""
        rows, columns = self.parameters[role].shape
        n = x.ty.shape[0]
        stored_as = layout(self.parameters[role], self.quantization)
        if self.simd is not None:
            func, symbol = linear.matmul_cpu(rows, columns, self.quantization, stored_as, self.simd), "matmul"
        elif _is_one(n):
            func, symbol = linear.gemv_gpu(rows, columns, self.quantization, stored_as), "gemv"
        else:
            func, symbol = linear.gemm_gpu(rows, columns, self.quantization, stored_as), "gemm"
        return self._call(
            f"{symbol}_{rows}x{columns}",
            func,
            [x, *self._stored(role)],
            relax.TensorType((n, rows), "float32"),
        )

    def _norm(self, x: relax.Expr, role: str, residual: relax.Expr | None = None) -> relax.Expr:
        spec = self.spec
        (size,) = self.parameters[role].shape
        func = norm.norm(
            size,
            spec.norm_eps,
            self.quantization.model_dtype,
            kind=spec.norm,
            bias=spec.norm_bias,
            residual=residual is not None,
            gpu=self.gpu,
        )
        inputs = [x, *self._stored(role), *self._bias(role)] + ([] if residual is None else [residual])
        name = f"{spec.norm}_norm" if residual is None else f"{spec.norm}_norm_add"
        return self._call(name, func, inputs, relax.TensorType(x.ty.shape, "float32"))
