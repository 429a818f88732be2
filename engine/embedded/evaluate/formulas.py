"""The parts of a decoder layer in float32 with numpy, as transformers computes them.

Arrays are float32 unless said.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.embedded.spec import Activation, LayerSpec, RopeScaling

F32 = npt.NDArray[np.float32]
_erf = np.frompyfunc(math.erf, 1, 1)


def rope_frequencies(
    rotary_dim: int, layer: LayerSpec, context: int | None = None
) -> npt.NDArray[np.float64]:
    """Radians per position of each of the rotary_dim / 2 rotated pairs, in sequences of up to `context`."""
    frequencies = layer.rope_theta ** -(np.arange(0, rotary_dim, 2) / rotary_dim)
    return frequencies if layer.rope_scaling is None else _scaled(frequencies, layer.rope_scaling, context)


def _scaled(
    frequencies: npt.NDArray[np.float64], scaling: RopeScaling, context: int | None
) -> npt.NDArray[np.float64]:
    """As `_compute_{linear_scaling_rope,llama3,yarn,longrope}_parameters` of transformers."""
    if scaling.rope_type == "longrope":
        is_long = context is not None and context > scaling.original_max_position_embeddings
        factors = np.array(scaling.long_factor if is_long else scaling.short_factor, np.float64)
        return np.asarray(frequencies / factors, np.float64)
    if scaling.rope_type == "yarn":
        return np.asarray(frequencies / np.array(scaling.short_factor, np.float64), np.float64)
    slow = frequencies / scaling.factor
    if scaling.rope_type == "linear":
        return slow
    # Llama 3.1: wavelengths beyond the trained context are stretched, short ones kept, blended between.
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = np.clip((turns - scaling.low_freq_factor) / span, 0.0, 1.0)
    return kept * frequencies + (1.0 - kept) * slow


def rotate(x: F32, frequencies: npt.NDArray[np.float64], factor: float, most: int | None = None) -> F32:
    """Rotate [n, heads, head_dim] at positions 0..n-1, each pair by its own of `frequencies` [pairs].

    Element i turns with element i + pairs; elements past the pairs stay. Cosines and sines are
    multiplied by `factor`. With `most`, positions above it count as it.
    """
    pairs = len(frequencies)
    positions = np.arange(x.shape[0])
    if most is not None:
        positions = np.minimum(positions, most)
    angles = positions[:, None, None] * frequencies
    cos, sin = (np.float32(factor) * wave(angles).astype(np.float32) for wave in (np.cos, np.sin))
    low, high, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin, rest], axis=-1)


def rms_norm(x: F32, weight: F32, epsilon: float) -> F32:
    """X / sqrt(mean(x^2) + epsilon) * weight, over the last axis."""
    mean = np.mean(np.square(x), axis=-1, keepdims=True)
    return np.asarray(x / np.sqrt(mean + np.float32(epsilon)) * weight, np.float32)


def layer_norm(x: F32, weight: F32, epsilon: float) -> F32:
    """(x - mean) / sqrt(variance + epsilon) * weight, over the last axis; a bias is for the caller to add."""
    return rms_norm(x - np.mean(x, axis=-1, keepdims=True), weight, epsilon)


def activate(x: F32, activation: Activation) -> F32:
    """The activation of that name, element by element."""
    if activation == "silu":
        # exp overflows to inf for large -x, and x / inf is the right 0.
        with np.errstate(over="ignore"):
            return np.asarray(x / (1 + np.exp(-x)), np.float32)
    if activation == "gelu":
        return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2)).astype(np.float32)), np.float32)
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    return np.asarray(0.5 * x * (1 + np.tanh(inner)), np.float32)


def softcapped(x: F32, cap: float | None) -> F32:
    """Cap * tanh(x / cap), or x where there is no cap."""
    return x if cap is None else np.asarray(np.float32(cap) * np.tanh(x / np.float32(cap)), np.float32)


def attention(
    q: F32,
    k: F32,
    v: F32,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: int = 0,
    far: F32 | None = None,
) -> F32:
    """Causal attention, in blocks of rows.

    `q` is [n, heads, head_dim], `k` and `v` [n, key/value heads, head_dim]; returns
    [n, heads * head_dim]. With a `window`, a token sees itself and the window - 1 before it, and the
    first `sinks` tokens: those beyond the window with the queries `far` [n, heads, head_dim].
    """
    n, heads, d = q.shape
    kv_heads = k.shape[1]
    grouped = q.reshape(n, kv_heads, heads // kv_heads, d)
    grouped_far = grouped if far is None else far.reshape(grouped.shape)
    out = np.empty(grouped.shape, np.float32)
    for begin in range(0, n, 256):
        end = min(begin + 256, n)
        first = 0 if window is None else max(0, begin - window + 1)
        distance = np.arange(begin, end)[:, None] - np.arange(first, end)[None, :]
        hidden = distance < 0
        if window is not None:
            hidden |= distance >= window
        values = v[first:end]
        scores: npt.NDArray[Any] = np.einsum(
            "qhgd,khd->hgqk", grouped[begin:end], k[first:end], optimize=True
        )
        if window is not None and sinks:
            beyond = np.arange(begin, end)[:, None] - np.arange(min(sinks, end))[None, :] >= window
            more = np.einsum("qhgd,khd->hgqk", grouped_far[begin:end], k[: beyond.shape[1]], optimize=True)
            scores, hidden = np.concatenate([more, scores], -1), np.concatenate([~beyond, hidden], -1)
            values = np.concatenate([v[: beyond.shape[1]], values])
        scores = softcapped(scores * np.float32(scale), softcap)
        scores = np.where(hidden, np.float32(-np.inf), scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        out[begin:end] = np.einsum("hgqk,khd->qhgd", scores, values, optimize=True)
    return out.reshape(n, heads * d)
