"""The `compile` stage: mlc-chat-config.json to a model library."""

import argparse
import json
from pathlib import Path
from typing import Any

from engine import cuda, narrate
from engine.catalog import ALIASES, COMPILED_HERE, QUANTIZATIONS, check_target
from engine.cuda import PORTABLE, CudaOptions
from engine.embedded import awq, flags
from engine.embedded.families.registry import FAMILIES
from engine.embedded.flags import OVERRIDES
from engine.embedded.target import LibraryTarget, resolve
from engine.errors import UsageError
from engine.hosts import EXAMPLES
from engine.layout import CONFIG_NAME
from engine.units import mebibytes, megabytes

STEPS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `mlc_llm compile`, and --cuda-arch."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="mlc-chat-config.json or its folder")
    parser.add_argument("--quantization", help="must be that of the weights (default: from MODEL)")
    parser.add_argument("--model-type", default="auto", help="family (default: from MODEL)")
    parser.add_argument(
        "--device", default="webgpu", help=f"one of {', '.join(COMPILED_HERE)} (default: webgpu)"
    )
    parser.add_argument(
        "--host",
        default="auto",
        metavar="TRIPLE",
        help=f"where the host code runs, as {EXAMPLES[1]}, or 'TRIPLE -mcpu=CPU' (default: this machine)",
    )
    parser.add_argument("--opt", default="O2", help="O0 to O3, or switches: all compile the same here")
    parser.add_argument(
        "--system-lib-prefix",
        default="auto",
        help="of the symbols of a .tar: model_lib and an underscore (default: MODELTYPE_QUANTIZATION_)",
    )
    parser.add_argument("--overrides", default="", help="KEY=VALUE;... of " + ", ".join(OVERRIDES))
    parser.add_argument(
        "--cuda-arch",
        default="auto",
        help=f"sm_89, compute_75, ... (default: of the GPU here, or {PORTABLE})",
    )
    parser.add_argument("--output", "-o", type=Path, required=True, help="the library to write")


def run(arguments: argparse.Namespace) -> None:
    """Compile as the flags say. Raises WizardError."""
    if unused := flags.unused_opt(arguments.opt):
        narrate.say(
            f"note: --opt {';'.join(unused)} makes no difference: the embedded compiler has its own kernels."
        )
    compile_library(
        arguments.model,
        arguments.output,
        device=arguments.device,
        host=arguments.host,
        quantization=arguments.quantization,
        model_type=arguments.model_type,
        overrides=flags.parse_overrides(arguments.overrides),
        prefix=arguments.system_lib_prefix,
        cuda_arch=arguments.cuda_arch,
    )


def read_config(model: Path, overrides: dict[str, int]) -> dict[str, Any]:
    """The mlc-chat-config.json at `model` (or in that folder), with `overrides`. Raises UsageError."""
    path = model / CONFIG_NAME if model.is_dir() else model
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist.", remedy="Run the gen_config stage first: it writes that file."
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", remedy="Run gen_config again.") from error
    needed = ("model_type", "quantization", "model_config", "vocab_size", *OVERRIDES[:3])
    if not isinstance(config, dict) or (missing := [k for k in needed if k not in config]):
        raise UsageError(
            f"{path} is not a complete {CONFIG_NAME}"
            + (f": {', '.join(missing)} missing." if isinstance(config, dict) else "."),
            remedy="Run gen_config again.",
        )
    config |= overrides
    return config


def compile_library(
    model: Path,
    output: Path,
    *,
    device: str,
    host: str = "auto",
    quantization: str | None = None,
    model_type: str = "auto",
    overrides: dict[str, int] | None = None,
    prefix: str = "auto",
    cuda_arch: str = "auto",
) -> None:
    """Write the library for `device` to `output`, whole or not at all; the rest is as the flags say.

    Reads nothing but mlc-chat-config.json. Raises UsageError for what cannot be meant, StageError
    where linking fails, ToolchainError where a part of the compiler is missing.
    """
    config = read_config(model, overrides or {})
    target = resolve(device, host, output)
    name, family_name = config["quantization"], config["model_type"]
    asked = ALIASES.get(quantization, quantization) if quantization else name
    if asked != name or model_type not in ("auto", family_name):
        raise UsageError(
            f"The flags say {quantization or name}, {model_type}; "
            f"the configuration says {name}, {family_name}.",
            why="A library works with the weights of its own configuration only.",
            remedy="Leave out --quantization and --model-type, or run gen_config again with them.",
        )
    if name not in QUANTIZATIONS or family_name not in FAMILIES:
        raise UsageError(
            f"The embedded compiler has no {name} for model type {family_name}.",
            why=f"It has {', '.join(QUANTIZATIONS)} for {', '.join(FAMILIES)}.",
        )
    check_target(QUANTIZATIONS[name], device)
    if QUANTIZATIONS[name].from_awq and family_name not in awq.FAMILIES:
        raise UsageError(f"The embedded compiler has {name} for {' and '.join(awq.FAMILIES)} only.")
    if (chunk := config["prefill_chunk_size"]) < 1:
        raise UsageError(f"prefill_chunk_size is {chunk}; it must be 1 or more.")
    static = target.form == "static"
    symbols = flags.system_lib_prefix(prefix, static=static, model_type=family_name, quantization=name)
    if static and not symbols:
        narrate.say("warning: without a prefix, an app can have no other model beside this one.")
    if prefix not in ("auto", "") and not static:
        narrate.say(f"note: --system-lib-prefix {prefix} makes no difference: only a .tar has a prefix.")
    _build(config, output, target, symbols, cuda_arch)


def _build(config: dict[str, Any], output: Path, target: LibraryTarget, prefix: str, cuda_arch: str) -> None:
    options = _cuda(cuda_arch) if target.device.kernels == "cuda" else None
    narrate.progress(0, STEPS, "steps", "loading the compiler")
    # Imported late: bad input must not wait for TVM.
    from engine.embedded import library, lower
    from engine.embedded.native import export

    plan = library.plan_of(config)
    if warning := library.longrope_warning(plan):
        narrate.say(f"warning: {warning}")
    # The source that TVM writes for CUDA asks the compiler what the architecture can do.
    written_for = options.architectures[0].replace("compute_", "sm_") if options else ""
    host = None if target.native else target.host
    tvm_target = lower.make_target(target.device.name, host, cuda_arch=written_for)
    narrate.progress(1, STEPS, "steps", "describing the model")
    mod = library.build_module(plan, tvm_target)
    narrate.progress(2, STEPS, "steps", "scheduling kernels, planning memory")
    mod = lower.lower(mod, tvm_target, cache_elements=library.cache_elements(plan))
    planned = lower.planned_bytes(mod)
    for step in ("prefill", "decode"):
        narrate.say(f"{step} plans {mebibytes(planned[step])} of temporaries")
    mod = library.with_metadata(mod, library.metadata(plan, planned))
    with export.kernels_compiled(target):
        executable = lower.code(mod, tvm_target, system_lib=target.system_lib, prefix=prefix)
    narrate.progress(3, STEPS, "steps", "linking")
    output.parent.mkdir(parents=True, exist_ok=True)
    export.write(executable, output, target, prefix, options)
    narrate.say(f"{output.name}: {megabytes(output.stat().st_size)}")
    if target.host is not None:
        # What verify holds the library to, also on another machine.
        made = {"library": output.name, "host": target.host.triple, "processor": lower.processor(tvm_target)}
        made |= {"system_lib_prefix": prefix} if target.system_lib else {}
        narrate.result(made | (cuda.identity(cuda_arch) if options else {}))
    narrate.progress(STEPS, STEPS, "steps", "done")


def _cuda(arch: str) -> CudaOptions:
    options = CudaOptions(compiler=cuda.compiler(), architectures=cuda.architectures(arch))
    narrate.say(f"CUDA kernels for {', '.join(options.architectures)} by {options.compiler}")
    return options
