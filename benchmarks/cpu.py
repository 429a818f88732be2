"""Speed of libraries for the CPU beside transformers and torch in float32, on the same model and threads.

`python -m benchmarks.cpu [--torch PYTHON] [--models ...] [--threads N] [--rounds N]`. torch lives in an
environment of its own, the dependency group `reference`; PYTHON is its interpreter.

Each round asks one engine and then the next, and a ratio is the median of those within a round: the load of
a shared machine comes and goes, and hits both. Times are those of the wall; with `--threads 1` of the
processor, which is what to ask for on a busy machine, where threads that wait for each other measure the
others' work. Decoding goes on where the prompt ends. Then where a library's time goes, by kernel.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.compile import measured, stage
from benchmarks.made_models import MODELS, make_model
from engine.catalog import host_library_suffix

CHILD = Path(__file__).with_name("cpu_child.py")
COMPILE_AIM = 60.0
PREFILL_AIM = 0.5
DECODE_AIMS = {"q0f32": 1.0, "q4f32_1": 3.0}
TORCH = "torch"
# Shares of a step below this are not worth a line.
SHOWN = 0.02


class Child:
    """An engine with a model, in a process of its own, that answers requests."""

    def __init__(self, interpreter: str, kind: str, folder: Path, threads: int) -> None:
        command = [interpreter, "-P", str(CHILD), kind, str(folder), str(threads)]
        # Of OpenMP too: libraries beside torch take the number from it.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TVM_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def ask(self, **request: object) -> Any:
        """The answer to `request`, see cpu_child.py."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"failed: {self._process.args}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def export(model: Path, quantization: str, out: Path, context: int) -> float:
    """An export with a library for the CPU in `out`; processor seconds that compile took."""
    sizes = ("--context-window-size", context, "--prefill-chunk-size", min(context, 512))
    named = (model, "--quantization", quantization, "-o", out)
    measured(stage("convert_weight", *named))
    measured(stage("gen_config", *named, *sizes))
    library = out / f"model-cpu{host_library_suffix()}"
    return measured(stage("compile", out, "--device", "cpu", "-o", library))[0]


def compare(torch: Child, library: Child, rounds: int, request: dict[str, int]) -> dict[str, list[float]]:
    """Tokens per second of the library and of torch, and their ratio, for the prompt and the tokens after."""
    sizes = {"prompt": request["prompt"], "tokens": request["tokens"]}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sizes}
    for number in range(rounds + 1):
        answers = []
        for child in (torch, library) if number % 2 else (library, torch):
            # Threads of the other engine spin for a while before they sleep.
            time.sleep(0.5)
            answers.append((child, child.ask(**request)))
        by = dict(answers)
        for name, size in sizes.items():
            if number:  # the first round warms up
                found[name].append((size / by[library][name], size / by[torch][name]))
    return {
        name: [median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)]
        for name, pairs in found.items()
    }


def shares(seconds: dict[str, float]) -> str:
    """The largest parts, in percent; kernels of a matrix are called after its shape."""
    parts = {name: s for name, s in seconds.items() if not name.startswith("vm.builtin")}
    parts["attention"] = sum(s for name, s in seconds.items() if name.endswith("with_fused_qkv"))
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {100 * s / total:.0f}%" for name, s in ordered if s > SHOWN * total)


def check_interpreter(interpreter: str) -> None:
    """Exit unless `interpreter` has torch and transformers."""
    try:
        command = [interpreter, "-c", "import torch, transformers"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        lacking = found.stderr.strip().splitlines()[-1:] if found.returncode else []
    except OSError as error:
        lacking = [str(error)]
    if lacking:
        raise SystemExit(
            f"{interpreter} cannot import torch and transformers: {lacking[0]}\n"
            "Name an interpreter that can: --torch PYTHON."
        )


def main() -> None:
    """Print what was reached, by model and quantization."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON", help="an interpreter with torch")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--quantizations", nargs="+", default=list(DECODE_AIMS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=16, help="tokens after it")
    given = parser.parse_args()
    check_interpreter(given.torch)
    request = {"prompt": given.prompt, "tokens": given.tokens}
    for name in given.models:
        with tempfile.TemporaryDirectory() as scratch:
            model = make_model(Path(scratch) / "model", MODELS[name])
            torch = Child(given.torch, TORCH, model, given.threads)
            for quantization in given.quantizations:
                out = Path(scratch) / quantization
                compiled = export(model, quantization, out, 2 * (given.prompt + given.tokens))
                library = Child(sys.executable, "library", out, given.threads)
                speeds = compare(torch, library, given.rounds, request)
                profile = library.ask(**request, profile=True)
                library.close()
                load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
                print(f"{name} {quantization}, {given.threads} threads, load {load:.1f}:")
                print(f"  compile  {compiled:5.1f} s of processors (aim {COMPILE_AIM:.0f})")
                aims = {"prompt": PREFILL_AIM, "tokens": DECODE_AIMS.get(quantization)}
                for part, (ours, theirs, ratio) in speeds.items():
                    label = {"prompt": "prefill", "tokens": "decode"}[part]
                    aim = "" if aims[part] is None else f" (aim {aims[part]})"
                    print(f"  {label:8} {ours:5.1f} tokens/s, torch {theirs:.1f}, ratio {ratio:.2f}{aim}")
                for part in speeds:
                    print(f"  {part}: {shares(profile[part])}")
                sys.stdout.flush()
            torch.close()


if __name__ == "__main__":
    main()
