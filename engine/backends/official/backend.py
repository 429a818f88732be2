"""The backend mlc_llm: a plan as commands of the official CLI, in the interpreter that has it."""

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.backends import kernel_compilers
from engine.backends.base import Folders, StageCommand, library_name
from engine.backends.official.cli import Cli, Subcommand
from engine.backends.official.inspection import Inspection
from engine.catalog import QUANTIZATIONS, check_target
from engine.embedded import awq
from engine.embedded.chat.named import AUTO, NAMED, NONE
from engine.errors import UsageError
from engine.events import StageName
from engine.model.facts import ModelFacts
from engine.model.tensors import weights_file
from engine.plan import ExportPlan

_PROGRAM = (sys.executable, "-P", "-m", "engine.backends.official.stage")
_PLAIN = "LM"
"""mlc_llm's template without turns; where ours takes its place, nothing of it stays."""
_INSTEAD = 'The embedded backend needs no mlc_llm and has no such limit: engine.backend = "embedded".'


@dataclass(frozen=True, kw_only=True)
class OfficialBackend:
    """mlc_llm as `found`. Where it was not looked into yet, `check` asks less, and there are no commands."""

    name = "mlc_llm"
    found: Inspection

    @staticmethod
    def check_limits(plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Raise UsageError for what no mlc_llm can do, whichever version it is."""
        quantization = QUANTIZATIONS.get(plan.quantization)
        if quantization is None:
            raise UsageError(f"quantization.mode = {plan.quantization!r} is not one that mlc-wizard knows.")
        if facts is not None:
            awq.check_pair(facts.quant_method, quantization)
        if plan.compile:
            library_name(plan)
            check_target(quantization, plan.device)
            if " " in plan.host:
                raise UsageError(
                    f"mlc_llm takes a triple alone, not target.host = {plan.host!r}.",
                    why="Its --host has no place for a processor: it takes the plainest of the triple.",
                    remedy=f'Leave the processor out: --set target.host="{plan.host.split()[0]}"',
                )

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Raise UsageError for what this mlc_llm does not know: a value, or a flag that the plan needs."""
        self.check_limits(plan, facts)
        if self.found.problem is not None:
            raise self.found.problem
        cli = self.found.cli
        if cli is None:
            return
        self._check_values(cli, plan, facts)
        for subcommand, flags in self._wanted(cli, plan):
            for flag, value in flags:
                if subcommand.spelling(flag) is None:
                    raise UsageError(
                        f"{self._called} cannot do this: its {subcommand.name} has no {flag}.",
                        why=f"The plan asks for {flag} {value}. It was found as {self.found.told}.",
                        remedy="Install a current mlc_llm and name its interpreter with engine.interpreter, "
                        "or leave that choice out.",
                    )

    @property
    def _called(self) -> str:
        return f"{self.found.module} {self.found.version}"

    def _check_values(self, cli: Cli, plan: ExportPlan, facts: ModelFacts | None) -> None:
        model_type = plan.model_type if plan.model_type != "auto" or facts is None else facts.model_type
        supported = facts is None or facts.spec is not None
        for what, key, value, flag in (
            ("model type", "model.model_type", model_type, "--model-type"),
            ("quantization", "quantization.mode", plan.quantization, "--quantization"),
        ):
            known = cli.convert_weight.choices.get(flag)
            if known and value != AUTO and value not in known:
                raise UsageError(
                    f"{self._called} does not know the {what} {value!r} ({key}).",
                    why=f"It knows {', '.join(known)}.",
                    remedy=_INSTEAD if supported else "",
                )
        known = cli.gen_config.choices.get("--conv-template", ())
        if plan.conv_template not in {AUTO, NONE, *known, *NAMED}:
            raise UsageError(
                f"There is no conversation template {plan.conv_template!r} (model.conv_template).",
                why=f"{self._called} knows {', '.join(known)}.",
                remedy='Leave it at "auto": it then comes from the model\'s own chat template.',
            )

    def _wanted(self, cli: Cli, plan: ExportPlan) -> tuple[tuple[Subcommand, list[tuple[str, str]]], ...]:
        """Of each stage the flags without which the plan would not be what was asked for."""
        return (
            (cli.convert_weight, _set(("--lora-adapter", plan.lora_adapter, ""))),
            (
                cli.gen_config,
                _set(
                    ("--context-window-size", plan.context_window_size, None),
                    ("--prefill-chunk-size", plan.prefill_chunk_size, None),
                    ("--sliding-window-size", plan.sliding_window_size, None),
                    ("--attention-sink-size", plan.attention_sink_size, None),
                    ("--tensor-parallel-shards", plan.tensor_parallel_shards, 1),
                ),
            ),
            (
                cli.compile,
                _set(
                    ("--host", plan.host, "auto"),
                    ("--opt", plan.opt, "O2"),
                    ("--system-lib-prefix", plan.system_lib_prefix, "auto"),
                    ("--overrides", plan.overrides, ""),
                )
                if plan.compile
                else [],
            ),
        )

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:
        """The three stages, each watched by a program of ours; what follows `--` is the command itself."""
        cli = self.found.cli
        assert cli is not None, "commands are asked for after check"
        commands = [self._convert_weight(cli, plan, folders), self._gen_config(cli, plan, folders)]
        if plan.compile:
            commands.append(self._compile(cli, plan, folders))
        return tuple(commands)

    def _convert_weight(self, cli: Cli, plan: ExportPlan, folders: Folders) -> StageCommand:
        into, adapter = folders.building("convert_weight"), folders.adapter
        source, form, view = _weights(plan, folders.source, into / "source")
        flags = (
            ("--quantization", plan.quantization),
            *_set(("--model-type", plan.model_type, "auto")),
            # Weights are the same wherever they are quantized; a GPU may be missing, or too small.
            ("--device", "cpu"),
            ("--source", str(source)),
            ("--source-format", form),
            *_set(("--lora-adapter", str(adapter) if adapter else None, None)),
            ("--output", str(into)),
        )
        shown = ("--source", str(folders.source), "--view", str(view)) if view else ()
        return self._command(
            "convert_weight",
            shown,
            self._line(cli, cli.convert_weight, folders.source, flags),
            folders,
            inputs=(folders.source, *((adapter,) if adapter else ())),
        )

    def _gen_config(self, cli: Cli, plan: ExportPlan, folders: Folders) -> StageCommand:
        known = cli.gen_config.choices.get("--conv-template", ())
        by_name = plan.conv_template in known
        stands = _PLAIN if _PLAIN in known or not known else known[0]
        flags = (
            ("--quantization", plan.quantization),
            *_set(("--model-type", plan.model_type, "auto")),
            ("--conv-template", plan.conv_template if by_name else stands),
            *_set(
                ("--context-window-size", plan.context_window_size, None),
                ("--sliding-window-size", plan.sliding_window_size, None),
                ("--prefill-chunk-size", plan.prefill_chunk_size, None),
                ("--attention-sink-size", plan.attention_sink_size, None),
                ("--tensor-parallel-shards", plan.tensor_parallel_shards, 1),
            ),
            ("--max-batch-size", str(plan.max_batch_size)),
            ("--output", str(folders.building("gen_config"))),
        )
        options: tuple[str, ...] = ("--source", str(folders.source))
        options += () if by_name else ("--conversation", plan.conv_template)
        options += ("--rolling",) if (plan.sliding_window_size or -1) > 0 else ()
        return self._command(
            "gen_config",
            options,
            self._line(cli, cli.gen_config, folders.source, flags),
            folders,
            inputs=(folders.source,),
        )

    def _compile(self, cli: Cli, plan: ExportPlan, folders: Folders) -> StageCommand:
        library = library_name(plan)
        flags = (
            ("--quantization", plan.quantization),
            *_set(("--model-type", plan.model_type, "auto")),
            ("--device", device_of(plan.device)),
            *_set(("--host", plan.host, "auto")),
            ("--opt", plan.opt),
            *_set(
                ("--system-lib-prefix", plan.system_lib_prefix, "auto"), ("--overrides", plan.overrides, "")
            ),
            ("--output", str(folders.building("compile") / library)),
        )
        return self._command(
            "compile",
            ("--library", library),
            self._line(cli, cli.compile, folders.config, flags),
            folders,
            inputs=(folders.config,),
            asked=kernel_compilers.of(plan, nvrtc=False),
        )

    def _line(
        self, cli: Cli, subcommand: Subcommand, positional: Path, flags: tuple[tuple[str, str], ...]
    ) -> tuple[str, ...]:
        """The command itself. What this version has no flag for is left out; `check` has seen to the rest."""
        model = ("--model", str(positional)) if "--model" in subcommand.flags else (str(positional),)
        spelled = ((subcommand.spelling(flag), value) for flag, value in flags)
        words = (word for flag, value in spelled if flag for word in (flag, value))
        python = str(self.found.candidate.python)
        return (python, "-m", cli.module, subcommand.name, *model, *words)

    def _command(
        self,
        stage: StageName,
        options: tuple[str, ...],
        line: tuple[str, ...],
        folders: Folders,
        *,
        inputs: tuple[Path, ...],
        asked: Callable[[], Mapping[str, str]] | None = None,
    ) -> StageCommand:
        checkout = self.found.candidate.checkout
        into = ("--into", str(folders.building(stage)))
        options += ("--checkout", str(checkout)) if checkout else ()
        return StageCommand(
            stage=stage,
            argv=(*_PROGRAM, stage, *into, *options, "--", *line),
            inputs=inputs,
            packages=("mlc-wizard",),
            versions=self.found.versions,
            asked=asked,
        )


def device_of(device: str) -> str:
    """`target.device` as --device has it: without ":generic" mlc_llm compiles for this machine's GPU only."""
    if device == "vulkan":
        return "vulkan:generic"
    if device == "metal":
        return "metal:x86-64" if platform.machine() == "x86_64" else "metal:generic"
    return device


def _weights(plan: ExportPlan, source: Path, view: Path) -> tuple[Path, str, Path | None]:
    """What --source and --source-format say, and the view that has to be made for it."""
    if QUANTIZATIONS[plan.quantization].from_awq:
        return view / "model.safetensors.index.json", "awq", view
    present = [path.name for path in source.iterdir()] if source.is_dir() else []
    if present and not weights_file(present, "huggingface-safetensor"):
        return source, "huggingface-torch", None
    return view, "huggingface-safetensor", view


def _set(*flags: tuple[str, object, object]) -> list[tuple[str, str]]:
    """The flags whose value is not the one that stands for nothing said."""
    return [(flag, str(value)) for flag, value, unsaid in flags if value not in (unsaid, None)]
