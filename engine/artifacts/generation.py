"""A library for this machine, shown to work: it generates, and says what the stored weights say."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from engine.artifacts.report import Report
from engine.catalog import QUANTIZATIONS
from engine.embedded.chat.conversation import Conversation
from engine.embedded.families.registry import FAMILIES, stated_decoder
from engine.errors import StageError
from engine.events import GENERATION

PROMPT = "Hello! Who are you?"
TOKENS = 12

TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
"""The largest difference of any logit, as a fraction of the logits' standard deviation."""


_TRIAL = """import pathlib, sys
from engine.embedded.local import LocalModel
LocalModel(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])).step([0])
"""
"""A library of another TVM may be refused by this one, or crash it."""


def why_not(output: Path, library: Path, config: dict[str, Any]) -> str:
    """Why a library of another compiler cannot be run here; empty where it can."""
    if config["model_type"] not in FAMILIES or config["quantization"] not in QUANTIZATIONS:
        return f"nothing is known of {config['model_type']} in {config['quantization']}"
    if config["context_window_size"] < 1 or not (output / "tokenizer.json").is_file():
        return "it needs a context of fixed length and tokenizer.json"
    command = (sys.executable, "-P", "-c", _TRIAL, str(output), str(library))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"this apache-tvm does not run {library.name}, which was compiled by another{last}"


def verify(output: Path, library: Path, config: dict[str, Any], report: Report) -> None:
    """Generate greedily with `library` and compare every step with a float32 evaluation in numpy.

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
    if spec.rolling is None:
        prompt = prompt[: config["context_window_size"] - TOKENS]
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
