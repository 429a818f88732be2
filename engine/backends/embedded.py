"""The compiler inside this package: `python -P -m engine.embedded`, with the official CLI's flags."""

import importlib.util
import sys

from engine import catalog, cuda, paths
from engine.backends import kernel_compilers
from engine.backends.base import Folders, StageCommand, library_name
from engine.catalog import COMPILED_HERE, QUANTIZATIONS, check_target
from engine.embedded import awq, flags
from engine.embedded.families.common import check_context
from engine.embedded.families.registry import FAMILIES
from engine.errors import ToolchainError, UsageError
from engine.model.facts import ModelFacts
from engine.model.files import no_tokenizer_json
from engine.plan import ExportPlan

_PROGRAM = (sys.executable, "-P", "-m", "engine.embedded")


class EmbeddedBackend:
    """Needs nothing but what pip installed with this package."""

    name = "embedded"

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Raise UsageError for what it does not cover, ToolchainError where the compiler is missing."""
        self.cover(plan, facts)
        if plan.compile:
            _find_compiler()
            paths.check_home()
            if plan.device == "cuda":
                _check_cuda(plan)

    def cover(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Raise UsageError for what it does not cover, wherever it runs."""
        if facts is not None:
            facts.decoder()
        if plan.quantization not in QUANTIZATIONS:
            raise UsageError(
                f"quantization.mode = {plan.quantization!r} is not one the embedded compiler knows.",
                why=f"It knows {', '.join(QUANTIZATIONS)}.",
            )
        if facts is not None:
            if "tokenizer.json" not in facts.tokenizer_files:
                raise no_tokenizer_json(plan.source, has_sentencepiece=bool(facts.tokenizer_files))
            awq.check_pair(facts.quant_method, QUANTIZATIONS[plan.quantization])
            if facts.spec is not None:
                check_context(facts.spec, plan.context_window_size or 0)
                FAMILIES[facts.spec.model_type].check_rolling(plan.sliding_window_size or -1)
        if plan.compile:
            check_target(QUANTIZATIONS[plan.quantization], plan.device)
            library_name(plan)
            _check_flags(plan)
        if plan.compile and plan.device not in COMPILED_HERE:
            raise UsageError(
                f"The embedded backend does not compile for {plan.device}, "
                f"only for {', '.join(COMPILED_HERE)}.",
                why=f"{catalog.TARGETS[plan.device].lacks_codegen} A library for {plan.device} is made by "
                "the official compiler: the backend mlc_llm, or docker with an image that has it.",
                remedy=f"Make weights and configuration only, which serve {plan.device} as well, or choose "
                "another target.",
                fix="compile",
            )

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:
        """The three stages; flags at their defaults are left out."""
        adapter = folders.adapter
        model = ("--quantization", plan.quantization, *_flag("--model-type", plan.model_type, "auto"))
        commands = [
            StageCommand(
                stage="convert_weight",
                argv=(
                    *(*_PROGRAM, "convert_weight", str(folders.source), *model),
                    *_flag("--lora-adapter", str(adapter) if adapter else None),
                    *("-o", str(folders.building("convert_weight"))),
                ),
                inputs=(folders.source, *((adapter,) if adapter else ())),
                packages=("mlc-wizard", "numpy", "ml_dtypes"),
            ),
            StageCommand(
                stage="gen_config",
                argv=(
                    *(*_PROGRAM, "gen_config", str(folders.source), *model),
                    *("--conv-template", plan.conv_template),
                    *_flag("--context-window-size", plan.context_window_size),
                    *_flag("--sliding-window-size", plan.sliding_window_size),
                    *_flag("--prefill-chunk-size", plan.prefill_chunk_size),
                    *_flag("--attention-sink-size", plan.attention_sink_size),
                    *_flag("--tensor-parallel-shards", plan.tensor_parallel_shards, 1),
                    *_flag("--max-batch-size", plan.max_batch_size, 1),
                    *("-o", str(folders.building("gen_config"))),
                ),
                inputs=(folders.source,),
                packages=("mlc-wizard", "tokenizers", "jinja2"),
            ),
        ]
        if plan.compile:
            commands.append(
                StageCommand(
                    stage="compile",
                    argv=(
                        *(*_PROGRAM, "compile", str(folders.config), *model, "--device", plan.device),
                        *_flag("--host", plan.host, "auto"),
                        *("--opt", plan.opt),
                        *_flag("--system-lib-prefix", plan.system_lib_prefix, "auto"),
                        *_flag("--overrides", plan.overrides, ""),
                        *_flag("--cuda-arch", plan.cuda_arch, "auto"),
                        *("-o", str(folders.building("compile") / library_name(plan))),
                    ),
                    inputs=(folders.config,),
                    packages=("mlc-wizard", "apache-tvm", "apache-tvm-ffi", "ziglang"),
                    asked=kernel_compilers.of(plan),
                )
            )
        return tuple(commands)


def _find_compiler() -> None:
    for module, package in (("tvm", "apache-tvm"), ("ziglang", "ziglang")):
        if importlib.util.find_spec(module) is None:
            raise ToolchainError(
                f"Compiling needs {package}, which is not installed here.",
                why="It has no wheels for Intel Macs and 32 bit systems.",
                remedy=f"Run: {sys.executable} -m pip install --upgrade mlc-wizard\n"
                "or make weights and configuration only.",
                fix="compile",
            )


def _check_flags(plan: ExportPlan) -> None:
    """Raise UsageError for a flag of compile that it would refuse."""
    flags.unused_opt(plan.opt)
    flags.parse_overrides(plan.overrides)
    static = catalog.TARGETS[plan.device].static
    flags.system_lib_prefix(
        plan.system_lib_prefix, static=static, model_type="auto", quantization=plan.quantization
    )


def _check_cuda(plan: ExportPlan) -> None:
    """Raise a WizardError where kernels cannot be compiled for what the plan names."""
    found = cuda.compiler()
    if plan.cuda_arch != "auto":
        cuda.check_architectures(cuda.architectures(plan.cuda_arch), found)


def _flag(name: str, value: str | int | None, default: str | int | None = None) -> tuple[str, ...]:
    return () if value == default or value is None else (name, str(value))
