"""OUT/export-receipt.json: what was made, of what, with what, and what was verified about it."""

import dataclasses
import json
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from engine import preset, wasm_lint
from engine.backends.base import library_name
from engine.catalog import TARGETS
from engine.disk import write_atomically
from engine.embedded.flags import system_lib_prefix
from engine.errors import UsageError
from engine.estimate import estimate
from engine.events import Check
from engine.layout import HOME_NAME, RECEIPT_NAME
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan
from engine.run.fingerprint import versions
from engine.run.state import File, StageState
from engine.units import MIB

LOW_RESOURCE_MB = 3000
"""WebLLM's own table marks nearly all models up to this much `vram_required_MB` for small devices."""

_REPAIRS = "repairs"
_PACKAGES = (
    "mlc-wizard",
    "apache-tvm",
    "apache-tvm-ffi",
    "ziglang",
    "numpy",
    "tokenizers",
    "huggingface_hub",
)


def write(
    output: Path,
    *,
    plan: ExportPlan,
    facts: ModelFacts,
    revision: str,
    backend: str,
    compiler: str,
    elsewhere: Mapping[str, str],
    stages: Mapping[str, StageState],
    files: Sequence[File],
    checks: Sequence[Check],
    started: datetime,
    finished: datetime,
) -> None:
    """Write the receipt of a finished export into `output`.

    `plan` is the plan as run, every open size filled in; `revision` the commit of a Hub model;
    `compiler` the backend whose commands `backend` ran; `elsewhere` the versions of what was used and
    is not installed here. Raises a WizardError where it cannot be written.
    """
    document = {
        "version": 1,
        "preset": preset.dumps(dataclasses.replace(plan, revision=revision or plan.revision)),
        "source": {
            "source": plan.source,
            "revision": revision,
            "lora_adapter": plan.lora_adapter,
            "model_type": facts.model_type,
            "architectures": facts.architectures,
        },
        "conversation": {k: v for k, v in stages["gen_config"].result.items() if k != _REPAIRS},
        "backend": backend,
        "compiler": compiler,
        "versions": {"python": platform.python_version(), **versions(_PACKAGES)},
        "platform": platform.platform(),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": {name: round(state.seconds, 3) for name, state in stages.items()},
        "files": [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in files],
        "checks": [dataclasses.asdict(check) for check in checks],
    }
    if compiled := {k: v for k, v in _result(stages, "compile").items() if k != _REPAIRS}:
        document["library"] = compiled
    if elsewhere:
        document["versions_of_backend"] = dict(elsewhere)
    if repairs := [line for state in stages.values() for line in _lines(state)]:
        document["repairs"] = repairs
    if plan.device == "webgpu" and plan.compile:
        document["webllm"] = webllm(output, plan, facts)
    if plan.compile and TARGETS[plan.device].static:
        document["mlc_package"] = mlc_package(plan, facts)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_atomically(output / RECEIPT_NAME, text, through=output / HOME_NAME)


def _result(stages: Mapping[str, StageState], stage: str) -> dict[str, Any]:
    """What `stage` told of its result; nothing where it was not run."""
    return stages[stage].result if stage in stages else {}


def _lines(state: StageState) -> list[str]:
    """What a stage corrected of what it had written."""
    return str(state.result.get(_REPAIRS, "")).splitlines()


def plan_of(output: Path) -> ExportPlan:
    """The plan that made the export in `output`: every open size and the revision filled in.

    Raises UsageError where its receipt is missing or cannot be read.
    """
    path = output / RECEIPT_NAME
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["preset"]
        if not isinstance(text, str):
            raise TypeError
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UsageError(
            f"{path} is no receipt of an export.", remedy="Run the export again: it is written anew."
        ) from None
    return preset.loads(text, str(path), Path.cwd())


def webllm(output: Path, plan: ExportPlan, facts: ModelFacts) -> dict[str, Any]:
    """A ModelRecord for WebLLM's `appConfig.model_list`, and what its owner has to add to it.

    `model` and `model_lib` are absolute URLs, which nobody knows before the files are published.
    """
    memory: dict[str, Any] = {}
    if facts.spec is not None:  # of a family that only mlc_llm knows, no shape is known here
        vram = round(estimate(facts, plan).vram_bytes / MIB, 2)
        memory = {"vram_required_MB": vram, "low_resource_required": vram <= LOW_RESOURCE_MB}
    return {
        "model_record": {
            "model_id": model_id(plan),
            **memory,
            "required_features": wasm_lint.required_features(output / library_name(plan)),
            "overrides": _window(plan),
        },
        "to_fill_in": {
            "model": "The absolute URL of this folder once published, for example "
            "https://huggingface.co/OWNER/NAME; WebLLM itself appends /resolve/main/ to it.",
            "model_lib": f"The absolute URL of {library_name(plan)}, for example "
            f"https://huggingface.co/OWNER/NAME/resolve/main/{library_name(plan)}.",
        },
    }


def mlc_package(plan: ExportPlan, facts: ModelFacts) -> dict[str, Any]:
    """What mlc-package-config.json says of a library for an app, and what its owner has to add to it.

    `model_lib` is the prefix of the library's symbols without its last underscore (docs/native-contract.md).
    """
    prefix = system_lib_prefix(
        plan.system_lib_prefix, static=True, model_type=facts.model_type, quantization=plan.quantization
    )
    model_lib = prefix.removesuffix("_")
    memory = {} if facts.spec is None else {"estimated_vram_bytes": estimate(facts, plan).vram_bytes}
    unknown = "Of the entry in model_list: memory that the model takes, a number of bytes."
    return {
        "device": plan.device,
        "model_list": [{"model_id": model_id(plan), "model_lib": model_lib, **memory}],
        "model_lib_path_for_prepare_libs": {model_lib: library_name(plan)},
        "to_fill_in": {
            "model": "Of the entry in model_list: where the weights are, HF://OWNER/NAME, or a folder, with "
            '"bundle_weight": true beside it.',
            **({} if memory else {"estimated_vram_bytes": unknown}),
            "model_lib_path_for_prepare_libs": f"The path of {library_name(plan)} from the app's project.",
        },
    }


def _window(plan: ExportPlan) -> dict[str, int | None]:
    """The one of the two windows that is set."""
    if plan.sliding_window_size and plan.sliding_window_size > 0:
        return {"sliding_window_size": plan.sliding_window_size}
    return {"context_window_size": plan.context_window_size}


def model_id(plan: ExportPlan) -> str:
    """NAME-QUANTIZATION-MLC, as WebLLM names its models."""
    name = re.split(r"[/\\:]", plan.source.rstrip("/\\"))[-1] or "model"
    return f"{name}-{plan.quantization}-MLC"
