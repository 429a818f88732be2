"""Programs in place of the stages, for how processes behave; never for what they make."""

import sys
from pathlib import Path

from runner_support import GEMMA

from engine.backends.base import Folders, StageCommand
from engine.events import StageName
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan

CONVERT = """
import hashlib, json, pathlib, sys
out, golden, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
manifest = json.loads((golden / "tensor-cache.json").read_text())
data = (golden / "params_shard_0.bin").read_bytes()
records = manifest["records"][0]["records"]
step, manifest["records"] = -(-len(records) // count), []
for i in range(0, len(records), step):
    part = records[i : i + step]
    start, end = part[0]["byteOffset"], part[-1]["byteOffset"] + part[-1]["nbytes"]
    name = f"params_shard_{len(manifest['records'])}.bin"
    (out / name).write_bytes(data[start:end])
    shard = {"dataPath": name, "format": "raw-shard", "nbytes": end - start}
    shard["records"] = [r | {"byteOffset": r["byteOffset"] - start} for r in part]
    shard["md5sum"] = hashlib.md5(data[start:end]).hexdigest()
    manifest["records"].append(shard)
(out / "tensor-cache.json").write_text(json.dumps(manifest))
"""
CONFIG = """
import json, pathlib, shutil, sys
out, golden, quantization = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
config = json.loads((golden / "expected" / "mlc-chat-config.json").read_text())
config |= {"quantization": quantization, "sliding_window_size": -1}
config["conv_template"]["stop_token_ids"] = [1]
(out / "mlc-chat-config.json").write_text(json.dumps(config))
for name in config["tokenizer_files"]:
    shutil.copyfile(golden / "hf" / name, out / name)
"""
TALLY = "import sys; open(sys.argv[-1], 'a').write(sys.argv[-2] + '\\n')\n"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready'); time.sleep(600)"
)
PATIENT = "import time; print('ready'); time.sleep(600)"


class Printing:
    """A backend whose one stage is the Python program `code`; its argument is the folder to write in."""

    name = "stand-in"

    def __init__(self, code: str) -> None:
        self.code = code

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Everything is possible."""

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:  # noqa: ARG002
        """One stage."""
        folder = str(folders.building("convert_weight"))
        argv = (sys.executable, "-P", "-c", self.code, folder)
        return (StageCommand(stage="convert_weight", argv=argv),)


class StandIn:
    """Small programs in place of the stages; `instead` replaces one by other code."""

    name = "stand-in"

    def __init__(self, tally: Path, *, shards: int = 1, **instead: str) -> None:
        self.tally, self.shards, self.instead = tally, shards, instead

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Everything is possible."""

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:
        expected = str(GEMMA / "expected" / plan.quantization)
        convert = (CONVERT, expected, str(self.shards))
        stages: dict[StageName, tuple[str, ...]] = {
            "convert_weight": convert,
            "gen_config": (CONFIG, str(GEMMA), plan.quantization),
        }
        return tuple(
            StageCommand(
                stage=stage,
                argv=(
                    *(sys.executable, "-P", "-c", TALLY + self.instead.get(stage, code)),
                    *(str(folders.building(stage)), *rest, stage, str(self.tally)),
                ),
            )
            for stage, (code, *rest) in stages.items()
        )

    def ran(self) -> list[str]:
        return self.tally.read_text().split() if self.tally.exists() else []
