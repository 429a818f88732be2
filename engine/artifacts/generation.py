"""A library for this machine, shown to work: it generates, and says what the stored weights say."""

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from engine import hosts
from engine.artifacts import native
from engine.artifacts.report import Report
from engine.catalog import QUANTIZATIONS
from engine.embedded.chat.conversation import Conversation
from engine.embedded.families.registry import FAMILIES, stated_decoder
from engine.errors import StageError, UsageError
from engine.events import GENERATION

PROMPT = "Hello! Who are you?"
TOKENS = 12

TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
"""The largest difference of any logit, as a fraction of the logits' standard deviation."""


_TRIAL = """import pathlib, sys
from engine.embedded.local import LocalModel
LocalModel(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])).step([0])
"""
"""In a process of its own: a library of another TVM, or for a better processor, may crash it."""
_ILLEGAL = frozenset({-4, 128 + 4, 0xC000001D})
"""Exit codes of a process that met an instruction which the processor lacks, on POSIX and on Windows."""


def why_not(
    output: Path, library: Path, config: dict[str, Any], *, foreign: bool, compiled: Mapping[str, str]
) -> str:
    """Why a library for cpu cannot be run here; empty where it can.

    A `foreign` one is of another compiler; `compiled` is what ours told (`folder.compiled`), if anything.
    """
    if importlib.util.find_spec("tvm") is None:
        return "apache-tvm, which runs it, is not installed"
    if foreign:
        return _not_known(output, config) or _crash(output, library, f"{library.name}, compiled by another")
    # Of Linux on two processors both are model-cpu.so.
    architecture, here = native.read(library).architecture, hosts.here()
    if architecture != here.architecture:
        return f"{library.name} is for {hosts.TOLD[architecture]} processors, this is {here}"
    from tvm.target.codegen import llvm_get_system_cpu

    processor = compiled.get("processor", "") if compiled.get("library") == library.name else ""
    if processor == (own := llvm_get_system_cpu()):
        return ""
    done = _tried(output, library)
    if done.returncode not in _ILLEGAL:
        return ""  # whatever else is wrong with it, the checks say
    wanted = f", made for {processor}," if processor else ""
    return f"{library.name}{wanted} has instructions that this processor, {own}, lacks"


def _not_known(output: Path, config: dict[str, Any]) -> str:
    """Why nothing can be said of what a library of this configuration ought to compute."""
    if config["model_type"] not in FAMILIES or config["quantization"] not in QUANTIZATIONS:
        return f"nothing is known of {config['model_type']} in {config['quantization']}"
    if not (output / "tokenizer.json").is_file():
        return "it needs tokenizer.json"
    try:
        _, spec = stated_decoder(config)
    except UsageError as error:
        return error.what
    # Longer ones roll by rules of their own; up to the window all caches hold the same.
    if spec.rolling is not None and spec.rolling.window <= TOKENS:
        return f"its cache rolls after {spec.rolling.window} tokens"
    return ""


def _crash(output: Path, library: Path, what: str) -> str:
    done = _tried(output, library)
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"this apache-tvm does not run {what}" + (f": {lines[-1]}" if lines else "")


def _tried(output: Path, library: Path) -> "subprocess.CompletedProcess[bytes]":
    command = (sys.executable, "-P", "-c", _TRIAL, str(output), str(library))
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def verify(
    output: Path, library: Path, config: dict[str, Any], report: Report, *, foreign: bool = False
) -> None:
    """Generate greedily with `library` and compare every step with a float32 evaluation in numpy.

    That is of one cache for all: of a `foreign` library that rolls, only what comes before it does.

    The evaluation shares nothing with the compiler (`engine.embedded.evaluate`). Its cost is that of
    one pass over the weights.
    """
    # The compiler's runtime is loaded only where there is a library to run.
    from engine.embedded import evaluate
    from engine.embedded.local import LocalModel

    (family, spec), quantization = stated_decoder(config), QUANTIZATIONS[config["quantization"]]
    tokenizer = Tokenizer.from_buffer((output / "tokenizer.json").read_bytes())
    conversation = Conversation.from_json(config["conv_template"])
    prompt = conversation.token_ids([{"role": "user", "content": PROMPT}], tokenizer)
    if spec.rolling is None or foreign:
        most = spec.rolling.window if spec.rolling else config["context_window_size"]
        prompt = prompt[: most - TOKENS]
    try:
        model = LocalModel(output, library)
        steps, tokens = _generate(model, prompt)
    except (StageError, RuntimeError, ValueError, AttributeError, OSError) as error:
        report.add(GENERATION, [f"{library.name} does not run: {str(error).splitlines()[-1]}"], "")
        return
    stored = evaluate.stored_weights(output, family.parameters(spec), quantization)
    fed = np.asarray([*prompt, *tokens[:-1]], np.int64)
    want = evaluate.logits(spec, stored, fed, context=config["context_window_size"])[len(prompt) - 1 :]
    worst = float(np.abs(steps - want).max() / want.std())
    tolerance = TOLERANCES[quantization.model_dtype]
    problems = []
    if not np.isfinite(steps).all():
        problems.append("some logits are not finite")
    elif worst > tolerance:
        problems.append(
            f"logits differ from the stored weights' by {worst:.1e} of their standard deviation, "
            f"more than {tolerance:.0e}"
        )
    text = tokenizer.decode(tokens)
    report.add(GENERATION, problems, f"{len(tokens)} tokens, logits within {worst:.0e} of float32: {text!r}")


def _generate(model: Any, prompt: list[int]) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Logits [steps, vocab] and the greedy tokens; what follows a stop token is compared as well."""
    logits, steps, tokens = model.step(prompt), [], []
    for _ in range(TOKENS):
        steps.append(logits)
        tokens.append(int(logits.argmax()))
        logits = model.step(tokens[-1:])
    return np.stack(steps), tokens
