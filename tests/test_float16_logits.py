"""Packages of float16 quantizations give the reference's logits in real WebLLM, on a GPU with shader-f16.

The GPU is Mesa's lavapipe, that is this processor; WebLLM and Dawn are those of the browser, in Node.js.
"""

import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import awq_models
import float16_reference
import numpy as np
import pytest
import rolling_support
from browser.node import Node
from browser.webllm import Page
from browser_chat_support import two_turns
from exports import GOLDEN, LIBRARY, QUANTIZATIONS, decoder, export
from numpy.typing import NDArray
from safetensors.numpy import load_file

from engine.embedded import evaluate
from engine.embedded.__main__ import main

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(sys.platform != "linux", reason="Mesa's software GPU is packaged for Linux"),
]

TOLERANCE = 1e-2
"""Of the logits' standard deviation, to float32, as on the CPU. Queries, keys, values and what attention
makes of them are rounded to 11 bits in each of 2 to 7 layers: in numpy that alone makes 2e-3 to 6e-3."""
AT_ONCE = 1e-3
"""To numpy with that rounding, of a prompt in one chunk; what is left is numbers that lie between two of
float16 and fall to the other side. (What comes in chunks is rounded once more: attention to the cache is a
part of its own, merged with that within the chunk.)"""
GREEDY = 12
AWQ = "q4f16_autoawq"
ON_LLAMA = ("q0f16", "q4f16_1", "q4f16_0", "q4f16_2", "q3f16_0", "q3f16_1")
# Between them all kinds of norm, bias, head layout, position, activation and softcap.
WITH_Q4F16_1 = ("gemma3_text", "gemma2", "gpt_neox", "gpt2", "phi", "qwen2", "qwen3", "olmo2")


class Reference(NamedTuple):
    """Logits float32 [n, vocab] of the stored weights: in float32, and with float16's rounding."""

    exact: NDArray[np.float32]
    rounded: NDArray[np.float32]


def _reference(folder: Path, ids: list[int], quantization: str) -> Reference:
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS[quantization])
    tokens = np.asarray(ids)
    return Reference(evaluate.logits(spec, stored, tokens), float16_reference.logits(spec, stored, tokens))


def _error(found: NDArray[np.float32], want: NDArray[np.float32], at: int) -> float:
    assert np.isfinite(found).all()
    return float(np.abs(found - want[at]).max() / want.std())


@cache
def _tokens(model: str) -> dict[str, list[int]]:
    held = load_file(GOLDEN / model / "reference.safetensors")
    return {name: held[name].tolist() for name in ("input_ids", "prompt_ids")}


def _load(node: Node, folder: Path) -> Page:
    return node.load(folder, folder / LIBRARY["webgpu"])


def _check(page: Page, folder: Path, quantization: str, ids: list[int], prompt: list[int]) -> None:
    """`ids` in pieces, then greedily on from `prompt`: every step's logits are the reference's."""
    want = _reference(folder, ids, quantization)
    assert _error(page.forward(ids), want.rounded, -1) < AT_ONCE

    page.reset()  # a chunk longer than the window, a short chunk on the cache, token by token
    errors = [_error(page.forward(ids[:20]), want.exact, 19)]
    errors.append(_error(page.forward(ids[20:25]), want.exact, 24))
    for n in range(25, len(ids)):
        errors.append(_error(page.forward(ids[n : n + 1], prefill=False), want.exact, n))
    page.reset()
    for n in range(18):  # a prompt of one token goes through `decode`, from the very first
        errors.append(_error(page.forward(ids[n : n + 1], prefill=False), want.exact, n))
    assert max(errors) < TOLERANCE

    page.reset()
    steps, said = [page.forward(prompt)], []
    for _ in range(GREEDY):
        said.append(int(steps[-1].argmax()))
        steps.append(page.forward(said[-1:], prefill=False))
    exact = _reference(folder, [*prompt, *said], quantization).exact[len(prompt) - 1 :]
    errors += [_error(found, exact, step) for step, found in enumerate(steps)]
    assert max(errors) < TOLERANCE
    clear = 0
    for logits, token in zip(exact, said, strict=False):
        second, best = np.sort(logits)[-2:]
        if (best - second) / exact.std() > 2 * TOLERANCE:
            assert token == logits.argmax()
            clear += 1
    assert clear > GREEDY / 2


@pytest.mark.parametrize(
    ("model", "quantization"),
    [
        *(("llama", quantization) for quantization in ON_LLAMA),
        *((model, "q4f16_1") for model in WITH_Q4F16_1),
        ("gemma3_text", "q0f16"),
    ],
)
def test_logits_at_every_step_and_greedy_tokens(node: Node, model: str, quantization: str) -> None:
    folder = export(model, quantization, "webgpu")
    tokens = _tokens(model)
    _check(_load(node, folder), folder, quantization, tokens["input_ids"], tokens["prompt_ids"])


def test_awq_weights(node: Node, tmp_path: Path) -> None:
    source, out = str(tmp_path / "awq"), tmp_path / "export"
    awq_models.make(Path(source))
    sizes = ("--context-window-size", "128", "--prefill-chunk-size", "64")
    for stage in (
        ("convert_weight", source, "--quantization", AWQ, "-o", str(out)),
        ("gen_config", source, "--quantization", AWQ, "--conv-template", "auto", *sizes, "-o", str(out)),
        ("compile", str(out), "--device", "webgpu", "-o", str(out / LIBRARY["webgpu"])),
    ):
        assert main([*stage]) == 0
    ids = np.random.default_rng(5).integers(0, awq_models.VOCAB, 40).tolist()
    _check(_load(node, out), out, AWQ, ids, ids[:9])


@pytest.mark.parametrize("chunk", [8, 64])
def test_a_chat_of_two_turns_that_passes_the_window(node: Node, chunk: int) -> None:
    """Prompts in chunks below and above the window of 16 tokens."""
    folder = export("gemma3_text", "q4f16_1", "webgpu", chunk=chunk)
    chat = two_turns(_load(node, folder), folder, "red and blue")
    assert len(chat.fed) > 40
    want = _reference(folder, chat.fed, "q4f16_1").exact
    errors = [_error(found, want, n) for found, n in zip(chat.logits, chat.at, strict=True)]
    assert max(errors) < TOLERANCE


def test_a_rolling_cache_past_its_window(node: Node) -> None:
    """By chunks and token by token, with sinks that come with the chunk that rolls."""
    folder, window = rolling_support.rolling("webgpu", quantization="q4f16_1"), rolling_support.WINDOW
    page = _load(node, folder)
    want = rolling_support.reference("q4f16_1", rolling_support.ids_of_length(rolling_support.LENGTH))
    for fed in ([window, window, window, 1, 1], [2, window, 3, *[1] * 8]):
        rolling_support.check(lambda ids: page.forward(ids, prefill=len(ids) > 1), fed, want, TOLERANCE)
        page.reset()


def test_activations_may_pass_the_largest_float16(node: Node, tmp_path: Path) -> None:
    """Gemma 3's do: they are float32, so nothing becomes infinite."""
    folder = Path(shutil.copytree(export("gemma3_text", "q0f16", "webgpu"), tmp_path / "large"))
    cache = json.loads((folder / "tensor-cache.json").read_text(encoding="utf-8"))
    (shard, record), *_ = (
        (shard, record)
        for shard in cache["records"]
        for record in shard["records"]
        if record["name"].endswith("embed_tokens.weight")
    )
    shape = tuple(record["shape"])
    embedding = np.memmap(folder / shard["dataPath"], np.float16, "r+", record["byteOffset"], shape)
    embedding[...] = embedding.astype(np.float32) * (30000 / float(np.abs(embedding).max()))
    embedding.flush()
    ids = _tokens("gemma3_text")["input_ids"]
    assert float(np.abs(embedding[ids]).max()) * decoder(folder)[0].embedding_scale > 65504
    want = _reference(folder, ids, "q0f16").exact
    assert _error(_load(node, folder).forward(ids), want, -1) < TOLERANCE
