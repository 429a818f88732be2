"""Wall time and peak memory of convert_weight on the shape of Gemma 3 270M.

`python -m benchmarks.convert [--runs N]`. The floor is a process of its own too: it reads the source and
takes the md5 of as many bytes as the conversion writes, and does nothing else. Each figure is the best
of N runs of a whole process, start of Python included; runs alternate, so that load hits all alike.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.made_models import make_gemma3
from engine.catalog import QUANTIZATIONS

FLOOR = """
import hashlib, sys
from pathlib import Path
with open(sys.argv[1], "rb", buffering=0) as stream:
    buffer = bytearray(1 << 20)
    while stream.readinto(buffer):
        pass
for path in Path(sys.argv[2]).glob("params_shard_*.bin"):
    with open(path, "rb") as stream:
        hashlib.file_digest(stream, "md5")
"""
AIMS = {"q0f16": 3.0, "q4f16_1": 12.0}
OTHERS = tuple(name for name, q in QUANTIZATIONS.items() if name not in AIMS and not q.from_awq)


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident MiB of one process."""
    started = time.perf_counter()
    peak = 0
    child = psutil.Popen(command, stderr=subprocess.DEVNULL)
    while child.poll() is None:
        try:
            info = child.memory_info()
        except psutil.Error:
            break
        peak = max(peak, getattr(info, "peak_wset", info.rss))
        time.sleep(0.005)
    if child.wait() != 0:
        raise SystemExit(f"failed: {command}")
    return time.perf_counter() - started, peak / 2**20


def main() -> None:
    """Print one line for each quantization."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        model = make_gemma3(Path(scratch) / "model")
        weights = model / "model.safetensors"
        largest = 2 * 262144 * 640
        bound = 2.5 * largest / 2**20 + 250
        print(f"source {weights.stat().st_size / 2**20:.0f} MiB, largest tensor {largest / 2**20:.0f} MiB")
        print(f"peak memory may be {bound:.0f} MiB")
        for quantization in (*AIMS, *OTHERS):
            out = Path(scratch) / quantization
            convert = [sys.executable, "-P", "-m", "engine.embedded", "convert_weight", str(model)]
            convert += ["--quantization", quantization, "-o", str(out)]
            floor = [sys.executable, "-P", "-c", FLOOR, str(weights), str(out)]
            measured(convert)  # what the floor reads has to be there
            times, floors, peak = [], [], 0.0
            for _ in range(runs):
                seconds, mib = measured(convert)
                times.append(seconds)
                peak = max(peak, mib)
                floors.append(measured(floor)[0])
            manifest = json.loads((out / "tensor-cache.json").read_text())
            written = sum(shard["nbytes"] for shard in manifest["records"])
            ratio = min(times) / min(floors)
            aim = f" (aim {AIMS[quantization]:.0f})" if quantization in AIMS else ""
            print(
                f"{quantization:8} {written / 2**20:4.0f} MiB  wall {min(times):5.2f} s  "
                f"floor {min(floors):5.2f} s  ratio {ratio:4.1f}{aim}  peak {peak:4.0f} MiB"
            )


if __name__ == "__main__":
    main()
