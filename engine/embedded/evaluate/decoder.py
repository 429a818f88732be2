"""A DecoderSpec, evaluated over a whole sequence."""

from typing import Any

import numpy as np
import numpy.typing as npt

from engine.embedded.evaluate import formulas
from engine.embedded.evaluate.formulas import F32
from engine.embedded.evaluate.weights import Weights
from engine.embedded.spec import DecoderSpec

_ROWS_AT_ONCE = 8192


class _Evaluation:
    """One pass of a decoder over a whole sequence."""

    def __init__(self, spec: DecoderSpec, weights: Weights, context: int) -> None:
        self.spec = spec
        self.weights = weights
        self.context = context

    def norm(self, x: F32, role: str) -> F32:
        compute = formulas.rms_norm if self.spec.norm == "rms" else formulas.layer_norm
        return self._biased(compute(x, self.weights[role][:], self.spec.norm_eps), role)

    def linear(self, x: F32, role: str) -> F32:
        return self._biased(x @ self.weights[role][:].T, role)

    def _biased(self, x: F32, role: str) -> F32:
        bias = f"{role}.bias"
        return x + self.weights[bias][:] if bias in self.weights else x

    def layer(self, index: int, x: F32) -> F32:
        """One decoder layer over the hidden states [n, hidden_size]."""
        spec, name = self.spec, f"layers.{index}."
        before, behind = spec.norm_placement != "post", spec.norm_placement != "pre"
        start = x
        h = self.norm(x, f"{name}attention_norm") if before else x
        attended = self._attention(index, h)
        if behind:
            attended = self.norm(attended, f"{name}attention_out_norm")
        if not spec.parallel_residual:
            x = x + attended
        if before and not spec.shared_norm:
            h = self.norm(x, f"{name}mlp_norm")
        elif not spec.shared_norm:
            h = x
        out = self._mlp(index, h)
        if behind:
            out = self.norm(out, f"{name}mlp_out_norm")
        return start + attended + out if spec.parallel_residual else x + out

    def _mlp(self, index: int, x: F32) -> F32:
        name, act = f"layers.{index}.", self.spec.activation
        if self.spec.gated_mlp:
            gate, up = np.split(self.linear(x, f"{name}gate_up"), 2, axis=-1)
            return self.linear(formulas.activate(gate, act) * up, f"{name}down")
        return self.linear(formulas.activate(self.linear(x, f"{name}up"), act), f"{name}down")

    def _attention(self, index: int, x: F32) -> F32:
        spec, layer, name = self.spec, self.spec.layers[index], f"layers.{index}."
        q, k, v = self._qkv(index, x)
        rolling, far = spec.rolling, None
        if spec.qk_norm is not None:
            q, k = self._qk_norm(q, f"{name}q_norm"), self._qk_norm(k, f"{name}k_norm")
        if spec.rotary_dim:
            frequencies = formulas.rope_frequencies(spec.rotary_dim, layer, self.context)
            factor = layer.rope_scaling.attention_factor if layer.rope_scaling else 1.0
            far = formulas.rotate(q, frequencies, factor, rolling.window) if rolling else None
            q, k = (formulas.rotate(part, frequencies, factor) for part in (q, k))
        out = formulas.attention(
            q,
            k,
            v,
            scale=spec.attention_scale,
            window=rolling.window - rolling.sinks + 1 if rolling else layer.window,
            softcap=spec.attention_softcap,
            sinks=rolling.sinks if rolling else 0,
            far=far,
        )
        return self.linear(out, f"{name}attention_out")

    def _qkv(self, index: int, x: F32) -> tuple[F32, F32, F32]:
        """Queries, keys and values, [n, heads, head_dim] each."""
        spec, name, n, d = self.spec, f"layers.{index}.", x.shape[0], self.spec.head_dim
        if spec.qkv_layout == "joined":
            q_size, kv_size = spec.num_attention_heads * d, spec.num_key_value_heads * d
            parts = np.split(self.linear(x, f"{name}qkv"), [q_size, q_size + kv_size], axis=-1)
        else:
            parts = [self.linear(x, f"{name}{role}") for role in "qkv"]
        q, k, v = (part.reshape(n, -1, d) for part in parts)
        return q, k, v

    def _qk_norm(self, x: F32, role: str) -> F32:
        whole = x if self.spec.qk_norm == "head" else x.reshape(x.shape[0], -1)
        normed = formulas.rms_norm(whole, self.weights[role][:], self.spec.norm_eps)
        return normed.reshape(x.shape)


def logits(
    spec: DecoderSpec,
    weights: Weights,
    input_ids: npt.NDArray[np.integer[Any]],
    *,
    last_only: bool = False,
    context: int | None = None,
) -> F32:
    """Logits float32 [n, vocab_size] of `input_ids` [n] at positions 0..n-1; [1, V] if `last_only`.

    `context` is how many tokens a sequence may have, which longrope depends on: for a compiled model
    its context window. By default it is n, as transformers takes it.
    """
    ids = np.asarray(input_ids)
    pass_ = _Evaluation(spec, weights, ids.size if context is None else context)
    embedding = weights["embedding"]
    x = embedding[ids] * np.float32(spec.embedding_scale)
    if spec.position_embeddings == "learned":
        x = x + weights["positions"][: ids.size]
    for index in range(len(spec.layers)):
        x = pass_.layer(index, x)
    if last_only:
        x = x[-1:]
    x = pass_.norm(x, "norm")
    head = embedding if spec.tie_word_embeddings else weights["head"]
    out = np.empty((x.shape[0], spec.vocab_size), np.float32)
    # A vocabulary of 262144 rows would be a gigabyte at once.
    for begin in range(0, spec.vocab_size, _ROWS_AT_ONCE):
        rows = slice(begin, min(begin + _ROWS_AT_ONCE, spec.vocab_size))
        out[:, rows] = x @ head[rows].T
    if spec.head_bias:
        out += weights["head.bias"][:]
    return formulas.softcapped(out, spec.logit_softcap)
