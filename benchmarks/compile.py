"""Process time, wall time and peak memory of compile for WebGPU on the shape of Gemma 3 270M.

`python -m benchmarks.compile [--runs N]`. The runtime is cached before the first measured run. Each
figure is the best of N runs of a whole process. The ratio is to converting the same model in the same
run, `q0f16`: what a user waits for besides.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.made_models import GEMMA3_270M, make_model

AIM_SECONDS = 20.0


def measured(command: list[str]) -> tuple[float, float, float]:
    """Processor seconds with children, wall seconds and peak resident MiB of one process."""
    started = time.perf_counter()
    peak, used = 0, 0.0
    child = psutil.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while child.poll() is None:
        try:
            info, times = child.memory_info(), child.cpu_times()
        except psutil.Error:
            break
        peak = max(peak, getattr(info, "peak_wset", info.rss))
        # Windows tells nothing of ended children; there the linker's share is missing.
        used = sum(times[:4]) if len(times) >= 4 else times.user + times.system
        time.sleep(0.005)
    if child.wait() != 0:
        raise SystemExit(f"failed: {command}")
    return used, time.perf_counter() - started, peak / 2**20


def stage(name: str, *arguments: object) -> list[str]:
    """The command of a stage, as the runner starts it."""
    return [sys.executable, "-P", "-m", "engine.embedded", name, *(str(a) for a in arguments)]


def main() -> None:
    """Print one line for each quantization."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        model = make_model(Path(scratch) / "model", GEMMA3_270M)
        convert = stage("convert_weight", model, "--quantization", "q0f16", "-o", Path(scratch) / "weights")
        base = min(measured(convert)[1] for _ in range(runs))
        print(f"convert_weight q0f16: {base:.1f} s wall")
        for quantization in ("q0f16", "q4f32_1"):
            out = Path(scratch) / quantization
            sizes = ("--context-window-size", 4096, "--prefill-chunk-size", 512)
            config = stage("gen_config", model, "--quantization", quantization, *sizes, "-o", out)
            command = stage("compile", out, "-o", out / "model-webgpu.wasm")
            measured(config)
            measured(command)
            used, wall, peak = zip(*(measured(command) for _ in range(runs)), strict=True)
            print(
                f"compile {quantization}: {min(used):.1f} s of processors (aim {AIM_SECONDS:.0f}), "
                f"{min(wall):.1f} s wall = {min(wall) / base:.2f} of convert_weight, "
                f"peak {max(peak):.0f} MiB"
            )


if __name__ == "__main__":
    main()
