"""The `compile` stage: mlc-chat-config.json to a model library."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.catalog import ALIASES, QUANTIZATIONS, TARGETS, check_target, host_library_suffix
from engine.embedded import awq, narrate
from engine.embedded.families.registry import FAMILIES
from engine.errors import StageError, UsageError

DEVICES = ("webgpu", "cpu")
OVERRIDES = (
    "context_window_size",
    "sliding_window_size",
    "prefill_chunk_size",
    "attention_sink_size",
    "max_batch_size",
)
STEPS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `mlc_llm compile`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="mlc-chat-config.json or its folder")
    parser.add_argument("--quantization", help="must be that of the weights (default: from MODEL)")
    parser.add_argument("--model-type", default="auto", help="family (default: from MODEL)")
    parser.add_argument("--device", default="webgpu", help=f"{' or '.join(DEVICES)} (default: webgpu)")
    parser.add_argument("--host", default="auto", help="only auto: the browser's wasm32, or this machine")
    parser.add_argument("--opt", default="O2", help="O0 to O3; for webgpu and cpu they are the same")
    parser.add_argument("--system-lib-prefix", default="auto", help="only auto: none is needed")
    parser.add_argument("--overrides", default="", help="KEY=VALUE;... of " + ", ".join(OVERRIDES))
    parser.add_argument("--output", "-o", type=Path, required=True, help="the library to write")


def run(arguments: argparse.Namespace) -> None:
    """Compile as the flags say. Raises WizardError."""
    compile_library(
        arguments.model,
        arguments.output,
        device=_supported_device(arguments),
        quantization=arguments.quantization,
        model_type=arguments.model_type,
        overrides=parse_overrides(arguments.overrides),
    )


def _supported_device(arguments: argparse.Namespace) -> str:
    device = str(arguments.device)
    if device not in DEVICES:
        known = "a target of other backends" if device in TARGETS else "not a target"
        raise UsageError(
            f"--device {device} is {known}; the embedded compiler makes {' and '.join(DEVICES)}.",
            remedy="Choose one of those, or export weights and configuration only.",
        )
    for flag, found in (("--host", arguments.host), ("--system-lib-prefix", arguments.system_lib_prefix)):
        if found != "auto":
            raise UsageError(f"{flag} {found} is not supported: only auto is.", remedy=f"Leave out {flag}.")
    if arguments.opt not in {"O0", "O1", "O2", "O3"}:
        raise UsageError(f"--opt {arguments.opt} is not one of O0, O1, O2, O3.", remedy="Leave out --opt.")
    return device


def parse_overrides(text: str) -> dict[str, int]:
    """`KEY=VALUE;KEY=VALUE` as the official compiler takes it. Raises UsageError."""
    out: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        key, _, value = part.partition("=")
        if key not in OVERRIDES or not value.lstrip("-").isdigit():
            raise UsageError(
                f"--overrides: {part!r} is not KEY=NUMBER with one of {', '.join(OVERRIDES)}.",
                remedy='Write for example --overrides "context_window_size=4096;prefill_chunk_size=512".',
            )
        out[key] = int(value)
    return out


def read_config(model: Path, overrides: dict[str, int]) -> dict[str, Any]:
    """The mlc-chat-config.json at `model` (or in that folder), with `overrides`. Raises UsageError."""
    path = model / "mlc-chat-config.json" if model.is_dir() else model
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
            f"{path} is not a complete mlc-chat-config.json"
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
    quantization: str | None = None,
    model_type: str = "auto",
    overrides: dict[str, int] | None = None,
) -> None:
    """Write the library for `device` to `output`, whole or not at all.

    Reads nothing but mlc-chat-config.json. Raises UsageError for what cannot be meant, StageError
    where linking fails, ToolchainError where a part of the compiler is missing.
    """
    config = read_config(model, overrides or {})
    suffix = ".wasm" if device == "webgpu" else host_library_suffix()
    if output.suffix != suffix:
        raise UsageError(
            f"A library for {device} ends in {suffix}, not in {output.suffix or 'nothing'}: {output}",
            remedy=f"Write -o {output.with_suffix(suffix)}",
        )
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
    _build(config, output, device)


def _build(config: dict[str, Any], output: Path, device: str) -> None:
    narrate.progress(0, STEPS, "steps", "loading the compiler")
    # Imported late: bad input must not wait for TVM.
    from engine.embedded import library, lower

    plan = library.plan_of(config)
    if warning := library.longrope_warning(plan):
        narrate.say(f"warning: {warning}")
    target = lower.make_target(device)
    narrate.progress(1, STEPS, "steps", "describing the model")
    mod = library.build_module(plan, target)
    narrate.progress(2, STEPS, "steps", "scheduling kernels, planning memory")
    mod = lower.lower(mod, target)
    planned = lower.planned_bytes(mod)
    for step in ("prefill", "decode"):
        narrate.say(f"{step} plans {planned[step] / 2**20:.2f} MiB of temporaries")
    mod = library.with_metadata(mod, library.metadata(plan, planned))
    executable = lower.code(mod, target, system_lib=device == "webgpu")
    narrate.progress(3, STEPS, "steps", "linking")
    output.parent.mkdir(parents=True, exist_ok=True)
    if device == "webgpu":
        from engine.embedded.wasm import build, link

        # Minutes where this version is new to the machine; at once where it is cached.
        build.runtime(lambda done, total, name: narrate.progress(done, total, "runtime units", name))
        executable.export_library(str(output), fcompile=link.fcompile)
    else:
        executable.export_library(str(output), fcompile=link_shared)
    narrate.say(f"{output.name}: {output.stat().st_size / 2**20:.2f} MiB")
    narrate.progress(STEPS, STEPS, "steps", "done")


LINK_FLAGS = {
    # What the kernels call (libm, TVM's error functions) is in the process that loads the library:
    # linking against nothing spares zig the compilation of a C library of its own.
    "linux": ("-nostdlib",),
    "darwin": ("-nostdlib", "-Wl,-undefined,dynamic_lookup"),
    # Windows resolves no symbol at load time; zig brings the C runtime, tvm_ffi its import library.
    "win32": (),
}


def link_shared(output: str, objects: Sequence[str], **_options: object) -> None:
    """A shared library for this machine, linked by zig: no compiler need be installed."""
    from engine.embedded.wasm import toolchain

    unfinished = Path(f"{output}.unfinished")
    flags = list(LINK_FLAGS.get(sys.platform, LINK_FLAGS["linux"]))
    if sys.platform == "win32":
        flags += [str(path) for path in sorted((toolchain.find().tvm_ffi / "lib").glob("*.lib"))]
    with tempfile.TemporaryDirectory(prefix="mlc-wizard-", ignore_cleanup_errors=True) as folder:
        command = ["cc", "-shared", *flags, "-o", str(unfinished.absolute()), *objects]
        with toolchain.zig(command, cwd=Path(folder), cache=Path(folder)) as process:
            said = process.communicate()[0]
    if process.returncode != 0:
        raise StageError(
            f"The model could not be linked (zig cc, exit code {process.returncode}).",
            why="\n".join(said.strip().splitlines()[-5:]),
            remedy=f"{Path(sys.executable).name} -m pip install --force-reinstall ziglang",
        )
    unfinished.replace(output)


link_shared.object_format = "o"  # type: ignore[attr-defined]  # read by export_library
