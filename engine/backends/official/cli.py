"""The flags of one mlc_llm, as its own --help states them, and how older versions spelled them.

History of the spellings (mlc-llm's repository, python/mlc_chat/cli and python/mlc_llm/cli):
`--model DIR` became the positional argument on 2023-12-10, `gen_mlc_chat_config` became `gen_config` on
2023-12-04, `--max-sequence-length` became `--context-window-size` on 2023-11-15, `--sliding-window`
became `--sliding-window-size` on 2023-12-12, `--prefix-symbols` became `--system-lib-prefix` on
2023-12-01; `--lora-adapter` came on 2026-03-01.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.errors import UsageError
from engine.process import clean

OLDER: Mapping[str, tuple[str, ...]] = {
    "--context-window-size": ("--max-sequence-length",),
    "--sliding-window-size": ("--sliding-window",),
    "--system-lib-prefix": ("--prefix-symbols",),
}
"""Flags that had another name."""
GEN_CONFIG = ("gen_config", "gen_mlc_chat_config")

_OPTION_LINE = re.compile(r"^\s+(-.*?)(?:\s{2,}.*)?$")
_FLAG = re.compile(r"--[a-z][a-z0-9-]*")
_CHOICES = re.compile(r"(--[a-z][a-z0-9-]*)[ =]\{([^}]*)\}")


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """One subcommand: its name in this version, its flags, and the values of those that have a list."""

    name: str
    flags: frozenset[str]
    choices: Mapping[str, tuple[str, ...]]

    def spelling(self, flag: str) -> str | None:
        """`flag` as this version spells it, None where it has no such flag."""
        return next((name for name in (flag, *OLDER.get(flag, ())) if name in self.flags), None)


@dataclass(frozen=True, kw_only=True)
class Cli:
    """The command line of one mlc_llm: `python -m module`, and its three stages."""

    module: str
    convert_weight: Subcommand
    gen_config: Subcommand
    compile: Subcommand

    @property
    def is_legacy(self) -> bool:
        """Whether it is of the time before it was called mlc_llm."""
        return self.module != "mlc_llm"


def read(module: str, helps: Mapping[str, str]) -> Cli:
    """The command line of `module`, of which `helps` has the --help of each subcommand.

    Raises UsageError where it lacks one of the three stages, or a flag without which no stage works.
    """
    gen_config = next((name for name in GEN_CONFIG if name in helps), GEN_CONFIG[0])
    found = {}
    for name in ("convert_weight", gen_config, "compile"):
        flags, choices = _options(helps.get(name, ""))
        missing = [flag for flag in _NEEDED[name] if flag not in flags]
        if missing:
            what = f"{module} {name}" if name in helps else f"A subcommand {name}"
            raise UsageError(
                f"{what} has no {' and no '.join(missing)}."
                if name in helps
                else f"{what} is not among those of {module}.",
                why="This is no version of the official compiler that mlc-wizard knows how to call.",
                remedy="Install a current mlc_llm, or name another interpreter with engine.interpreter.",
            )
        found[name] = Subcommand(name=name, flags=flags, choices=choices)
    return Cli(
        module=module,
        convert_weight=found["convert_weight"],
        gen_config=found[gen_config],
        compile=found["compile"],
    )


_NEEDED = {
    "convert_weight": ("--quantization", "--output"),
    "gen_config": ("--quantization", "--conv-template", "--output"),
    "gen_mlc_chat_config": ("--quantization", "--conv-template", "--output"),
    "compile": ("--device", "--output"),
}


def _options(text: str) -> tuple[frozenset[str], dict[str, tuple[str, ...]]]:
    """The flags of argparse's help, from its lists of options; and the choices of those that state them."""
    options = list(_option_parts(text))
    flags = frozenset(flag for option in options for flag in _FLAG.findall(option.split("{")[0]))
    flags |= frozenset(flag for option in options for flag in _FLAG.findall(option.split("}")[-1]))
    choices = {
        match[1]: tuple(sorted(value.strip() for value in match[2].split(",") if value.strip()))
        for match in _CHOICES.finditer("\n".join(options))
    }
    return flags, choices


def _option_parts(text: str) -> Iterable[str]:
    for line in text.splitlines():
        if match := _OPTION_LINE.match(clean(line)):
            yield match[1]
