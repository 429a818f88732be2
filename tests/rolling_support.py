"""What tests of a rolling cache share: exports of a Mistral whose cache rolls, and that cache in numpy."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import exports
import numpy as np
from conftest import GOLDEN
from exports import LIBRARY, QUANTIZATIONS, decoder
from numpy.typing import NDArray
from safetensors.numpy import load_file

from engine.embedded import evaluate
from engine.embedded.__main__ import main
from engine.embedded.spec import DecoderSpec

F32 = NDArray[np.float32]
WINDOW, SINKS, LENGTH = 24, 4, 90


def ids_of_length(count: int) -> list[int]:
    """Tokens of the reference's text, no two stretches of a window alike."""
    text = load_file(GOLDEN / "mistral" / "reference.safetensors")["input_ids"]
    return [int(text[i % text.size] + i // text.size) for i in range(count)]


@cache
def rolling(device: str, window: int = WINDOW, sinks: int = SINKS, quantization: str = "q0f32") -> Path:
    """A Mistral export whose cache rolls, with a chunk as long as the window, compiled for `device`."""
    weights = exports.weights("mistral", quantization)
    folder = weights.with_name(f"rolling-{device}-{window}-{sinks}-{quantization}")
    shutil.copytree(weights, folder)
    sizes = ("--sliding-window-size", str(window), "--attention-sink-size", str(sinks))
    made = ("--quantization", quantization, "--prefill-chunk-size", str(window), "-o", str(folder))
    assert main(["gen_config", str(exports.source("mistral")), *made, *sizes]) == 0
    assert main(["compile", str(folder), "--device", device, "-o", str(folder / LIBRARY[device])]) == 0
    return folder


def streamed(spec: DecoderSpec, weights: evaluate.Weights, ids: list[int], window: int, sinks: int) -> F32:
    """Logits [n, vocab] of a Mistral whose cache keeps the first tokens and the latest, token by token.

    Keys are kept as they are before rope. A token is rotated as the one behind all that are kept, a kept
    key by its place among them. A cache that has grown past `window` drops the oldest token that is no
    sink: StreamingLLM, and what MLC's runtimes do with one token at a time.
    """
    heads, kv_heads, d = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
    frequencies = spec.layers[0].rope_theta ** -(np.arange(0, d, 2) / d)

    def norm(x: F32, role: str) -> F32:
        return np.asarray(x / np.sqrt(np.mean(x * x) + spec.norm_eps) * weights[role][:], np.float32)

    def turned(x: F32, places: NDArray[Any]) -> F32:
        pairs = x[..., : d // 2] + 1j * x[..., d // 2 :]
        pairs = pairs * np.exp(1j * places[:, None, None] * frequencies)
        return np.concatenate([pairs.real, pairs.imag], -1).astype(np.float32)

    matrices = {role: weights[role][:] for role in weights if weights[role][:].ndim == 2}
    kept: list[list[tuple[F32, F32]]] = [[] for _ in spec.layers]
    out = []
    for token in ids:
        x = matrices["embedding"][token]
        for i, cached in enumerate(kept):
            at = f"layers.{i}."
            qkv = (matrices[f"{at}qkv"] @ norm(x, f"{at}attention_norm")).reshape(-1, d)
            q, k, v = np.split(qkv, [heads, heads + kv_heads])
            cached.append((k, v))
            keys, values = (np.stack(part) for part in zip(*cached, strict=True))
            keys = turned(keys, np.arange(len(cached)))
            q = turned(q[None], np.array([len(cached) - 1]))[0]
            keys, values = (np.repeat(part, heads // kv_heads, axis=1) for part in (keys, values))
            weight = np.exp(np.einsum("hd,khd->hk", q, keys) * np.float32(d**-0.5))
            weight /= weight.sum(-1, keepdims=True)
            x = x + matrices[f"{at}attention_out"] @ np.einsum("hk,khd->hd", weight, values).ravel()
            gate, up = np.split(matrices[f"{at}gate_up"] @ norm(x, f"{at}mlp_norm"), 2)
            x = x + matrices[f"{at}down"] @ (gate / (1 + np.exp(-gate)) * up)
            if len(cached) > window:
                del cached[sinks]
        out.append(matrices["head"] @ norm(x, "norm"))
    return np.stack(out)


def reference(quantization: str, ids: list[int], window: int = WINDOW, sinks: int = SINKS) -> F32:
    """`streamed` on stored weights."""
    folder = exports.weights("mistral", quantization)
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS[quantization])
    return streamed(spec, stored, ids, window, sinks)


@cache
def expected(window: int = WINDOW, sinks: int = SINKS) -> F32:
    """The logits of `ids_of_length(LENGTH)` in q0f32."""
    return reference("q0f32", ids_of_length(LENGTH), window, sinks)


def error(found: F32, want: F32) -> float:
    return float(np.abs(found - want).max() / want.std())


def check(step: Callable[[list[int]], F32], lengths: list[int], want: F32, tolerance: float) -> None:
    """The logits after each of the pieces of those lengths."""
    ids, at = ids_of_length(LENGTH), 0
    for length in lengths:
        at += length
        assert error(step(ids[at - length : at]), want[at - 1]) < tolerance, at
