"""Time and peak memory of convert_weight: of each quantization, and of each family beside llama.

`python -m benchmarks.convert [--only quantizations|families] [--runs N]`. Quantizations on the shape of
Gemma 3 270M: the floor is a process of its own too, which reads the source and takes the md5 of as many
bytes as the conversion writes, and does nothing else; each figure is the best of N runs of a whole process,
start of Python included, and runs alternate, so that load hits all alike.

Families on checkpoints of some 150 M parameters each: time per byte read as a ratio to llama's, whose runs
alternate with each family's, the best of N of both. What becomes two parameters is read twice, GPT-2's
embedding. Processor time is what a family costs; the wall's is printed beside it, for what one thread does
alone.
"""

import argparse
import json
import sys
import tempfile
from math import prod
from pathlib import Path
from typing import Any

from benchmarks.compile import measured, stage
from benchmarks.made_models import GEMMA3_270M, family_config, make_model
from engine.catalog import QUANTIZATIONS
from engine.embedded.families.registry import FAMILIES
from engine.embedded.source import decoder_of
from engine.model.config import normalise

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
FAMILY_AIM = 1.2
BASE = "llama"


def conversion(model: Path, quantization: str, out: Path) -> list[str]:
    """The command that converts `model`."""
    return stage("convert_weight", model, "--quantization", quantization, "-o", out)


def bytes_read(config: dict[str, Any]) -> int:
    """How many bytes of a made checkpoint are read when it is converted."""
    return sum(2 * prod(parameter.shape) for parameter in decoder_of(normalise(config))[1])


def quantizations(scratch: Path, runs: int) -> None:
    """Print one line for each quantization."""
    model = make_model(scratch / "model", GEMMA3_270M)
    weights = model / "model.safetensors"
    largest = 2 * 262144 * 640
    bound = 2.5 * largest / 2**20 + 250
    print(f"source {weights.stat().st_size / 2**20:.0f} MiB, largest tensor {largest / 2**20:.0f} MiB")
    print(f"peak memory may be {bound:.0f} MiB")
    for quantization in (*AIMS, *OTHERS):
        out = scratch / quantization
        convert = conversion(model, quantization, out)
        floor = [sys.executable, "-P", "-c", FLOOR, str(weights), str(out)]
        measured(convert)  # what the floor reads has to be there
        times, floors, peak = [], [], 0.0
        for _ in range(runs):
            _, seconds, mib = measured(convert)
            times.append(seconds)
            peak = max(peak, mib)
            floors.append(measured(floor)[1])
        manifest = json.loads((out / "tensor-cache.json").read_text())
        written = sum(shard["nbytes"] for shard in manifest["records"])
        ratio = min(times) / min(floors)
        aim = f" (aim {AIMS[quantization]:.0f})" if quantization in AIMS else ""
        print(
            f"{quantization:8} {written / 2**20:4.0f} MiB  wall {min(times):5.2f} s  "
            f"floor {min(floors):5.2f} s  ratio {ratio:4.1f}{aim}  peak {peak:4.0f} MiB"
        )


def families(scratch: Path, runs: int) -> None:
    """Print one line for each family and quantization."""
    base, base_size = make_model(scratch / BASE, family_config(BASE)), bytes_read(family_config(BASE))
    for family in FAMILIES:
        if family == BASE:
            continue
        model = make_model(scratch / family, family_config(family))
        size = bytes_read(family_config(family))
        for quantization in AIMS:
            used: dict[Path, list[float]] = {model: [], base: []}
            wall: dict[Path, list[float]] = {model: [], base: []}
            for _ in range(runs + 1):  # the first reads from the disk
                for folder in (model, base):
                    processors, seconds, _ = measured(conversion(folder, quantization, scratch / "out"))
                    used[folder].append(processors)
                    wall[folder].append(seconds)
            of_processors, of_wall = (
                min(times[model]) / size / (min(times[base]) / base_size) for times in (used, wall)
            )
            print(
                f"{family:12} {quantization:8} {size / 2**20:4.0f} MiB: {of_processors:.2f} of {BASE}'s "
                f"processor time per byte (aim {FAMILY_AIM}), {of_wall:.2f} of the wall's",
                flush=True,
            )
        (model / "model.safetensors").unlink()


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=("quantizations", "families"))
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    for part in (quantizations, families):
        if given.only in (None, part.__name__):
            with tempfile.TemporaryDirectory() as scratch:
                part(Path(scratch), given.runs)


if __name__ == "__main__":
    main()
