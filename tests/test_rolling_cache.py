"""Mistral with a rolling cache: compiled libraries against a cache in numpy that drops tokens one by one."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pytest
from conftest import GOLDEN
from exports import LIBRARY, QUANTIZATIONS, decoder
from numpy.typing import NDArray
from safetensors.numpy import load_file

from engine.artifacts import verify
from engine.embedded import evaluate
from engine.embedded.__main__ import main
from engine.embedded.local import LocalModel
from engine.embedded.spec import DecoderSpec, RollingCache

F32 = NDArray[np.float32]
WINDOW, SINKS, LENGTH = 24, 4, 90
TOLERANCE = 1e-4
"""Of the logits' standard deviation."""


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


SIZES = [(WINDOW, SINKS), (16, 0), (17, 16), (1, 0), (40, 20)]


@pytest.mark.parametrize(("window", "sinks"), SIZES)
def test_the_evaluation_that_verify_uses_rolls_as_the_cache_does(window: int, sinks: int) -> None:
    folder = exports.weights("mistral", "q0f32")
    spec, parameters = decoder(folder)
    spec = replace(
        spec,
        rolling=RollingCache(window=window, sinks=sinks),
        layers=tuple(replace(layer, window=None) for layer in spec.layers),
    )
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q0f32"])
    found = evaluate.logits(spec, stored, np.asarray(ids_of_length(LENGTH)))
    assert error(found, expected(window, sinks)) < TOLERANCE


# Lengths of what is fed at once.
FED = {
    "shorter than the window, then far past it": [20, *[1] * 70],
    "as long as the window": [WINDOW, *[1] * 20],
    "longer, in chunks": [WINDOW, WINDOW, WINDOW, *[1] * 18],
    "chunks that end anywhere": [7, 24, 1, 23, 2, 16, 17],
    "token by token": [1] * LENGTH,
    "sinks that come with the chunk that rolls": [2, WINDOW, 3, WINDOW],
}


@pytest.mark.parametrize("fed", FED)
def test_a_compiled_library_is_that_cache_at_every_step(fed: str) -> None:
    folder = rolling("cpu")
    check(LocalModel(folder, folder / LIBRARY["cpu"]).step, FED[fed], expected(), TOLERANCE)


def check(step: Callable[[list[int]], F32], lengths: list[int], want: F32, tolerance: float) -> None:
    """The logits after each of the pieces of those lengths."""
    ids, at = ids_of_length(LENGTH), 0
    for length in lengths:
        at += length
        assert error(step(ids[at - length : at]), want[at - 1]) < tolerance, at


@pytest.mark.parametrize(("window", "sinks"), SIZES[1:])
def test_other_windows_and_sinks(window: int, sinks: int) -> None:
    folder = rolling("cpu", window, sinks)
    check(
        LocalModel(folder, folder / LIBRARY["cpu"]).step, [60, *[1] * 30], expected(window, sinks), TOLERANCE
    )


def test_sinks_window_and_rotation_all_matter() -> None:
    """What a wrong cache would give is far from what is expected here."""
    right = expected()
    for window, sinks in ((WINDOW, 0), (WINDOW, SINKS + 1), (WINDOW + 1, SINKS)):
        assert error(expected(window, sinks), right) > 100 * TOLERANCE
    folder = exports.weights("mistral", "q0f32")
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q0f32"])
    exact = evaluate.logits(spec, stored, np.asarray(ids_of_length(LENGTH)))
    assert error(exact[-1], right[-1]) > 100 * TOLERANCE
    np.testing.assert_allclose(
        exact[:16], right[:16], atol=1e-4
    )  # within every window there is no difference


def test_a_new_conversation_forgets_the_old_one() -> None:
    folder = rolling("cpu")
    model = LocalModel(folder, folder / LIBRARY["cpu"])
    model.step(ids_of_length(80)[40:])
    model.reset()
    check(model.step, [50], expected(), TOLERANCE)


def test_verify_runs_it_past_the_window(tmp_path: Path) -> None:
    """And catches a library that was compiled for other sinks than the configuration beside it says."""
    folder = Path(shutil.copytree(rolling("cpu"), tmp_path / "export"))
    checks = {check.name: check for check in verify(folder)}
    assert all(check.passed for check in checks.values()), checks
    assert "12 tokens" in checks["generation"].found
    path = folder / "mlc-chat-config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["attention_sink_size"] = config["model_config"]["attention_sink_size"] = 0
    path.write_text(json.dumps(config), encoding="utf-8")
    caught = {check.name: check.found for check in verify(folder) if not check.passed}
    assert "differ" in caught["generation"]
