"""The keys of a preset, version 1: which section, which field of ExportPlan, which values.

One table serves reading, `--set` and saving, so that no key can be known to one and not to another.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, get_args

from engine import paths
from engine.catalog import ALIASES, QUANTIZATIONS, TARGETS
from engine.errors import UsageError
from engine.model import source
from engine.plan import BackendName, ExportPlan

VERSION = 1
TOP = ""
"""The section name of keys that stand before any section."""

_INT_MAX = 2**31 - 1
_MOST_BITS = 200  # of a number that is worth being shown
_PAIRS = r"\w+=-?\w+(;\w+=-?\w+)*;?"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a preset. `allowed` says in words what `accepts` accepts.

    `aliases` are values that are understood, and what they are read as.
    """

    section: str
    name: str
    field: str
    type: type[bool] | type[int] | type[str]
    allowed: str
    accepts: Callable[[Any], bool] = lambda _: True
    choices: tuple[str, ...] = ()
    aliases: Mapping[str, str] = dataclass_field(default_factory=dict)

    @property
    def path(self) -> str:
        """section.key, as messages and `--set` write it."""
        return f"{self.section}.{self.name}" if self.section else self.name


def _text(section: str, name: str, allowed: str, *, pattern: str = r"(?s).*", field: str = "") -> Key:
    matcher = re.compile(pattern)
    return Key(
        section=section,
        name=name,
        field=field or name,
        type=str,
        allowed=allowed,
        accepts=lambda v: matcher.fullmatch(v) is not None,
    )


def _choice(
    section: str,
    name: str,
    choices: Iterable[str],
    *,
    field: str = "",
    aliases: Mapping[str, str] | None = None,
) -> Key:
    options = tuple(choices)
    return Key(
        section=section,
        name=name,
        field=field or name,
        type=str,
        allowed=", ".join(options),
        accepts=options.__contains__,
        choices=options,
        aliases=aliases or {},
    )


def _count(section: str, name: str, minimum: int, unit: str, *, off: bool = False) -> Key:
    return Key(
        section=section,
        name=name,
        field=name,
        type=int,
        allowed=f"a whole number of {unit} from {minimum} up" + (", or -1 for none" if off else ""),
        accepts=lambda v: minimum <= v <= _INT_MAX or (off and v == -1),
    )


KEYS: tuple[Key, ...] = (
    _text(TOP, "description", "one line of text"),
    _text("model", "source", 'a Hub id, a folder or "builtin:demo"', pattern=r"\S(.*\S)?"),
    _text("model", "revision", "a commit, branch or tag, or empty for the newest", pattern=r"\S*"),
    _text(
        "model",
        "lora_adapter",
        "empty, a folder, or a Hub id as owner/name or owner/name@revision",
        pattern=r"(\S(.*\S)?)?",
    ),
    _text("model", "model_type", '"auto" or the name of a model type', pattern=r"[\w.\-]+"),
    _text("model", "conv_template", '"auto", "none" or the name of a template', pattern=r"[\w.\-]+"),
    _choice("quantization", "mode", QUANTIZATIONS, field="quantization", aliases=ALIASES),
    _count("context", "context_window_size", 1, "tokens", off=True),
    _count("context", "prefill_chunk_size", 1, "tokens"),
    _count("context", "sliding_window_size", 1, "tokens", off=True),
    _count("context", "attention_sink_size", 0, "tokens"),
    _count("context", "max_batch_size", 1, "sequences"),
    _count("context", "tensor_parallel_shards", 1, "devices"),
    _choice("target", "device", TARGETS),
    Key(section="target", name="compile", field="compile", type=bool, allowed="true or false"),
    _text(
        "target",
        "host",
        '"auto", or an LLVM triple and where needed a processor, as "x86_64-linux-gnu -mcpu=x86-64-v4"',
        pattern=r"[\w.\-]+( -mcpu=[\w.\-]+)?",
    ),
    _text("target", "opt", "O0, O1, O2, O3 or flags as name=value;name=value", pattern=rf"O[0-3]|{_PAIRS}"),
    _text("target", "system_lib_prefix", '"auto", empty or a C identifier', pattern=r"([A-Za-z_]\w*)?"),
    _text("target", "overrides", "empty, or name=value;name=value", pattern=rf"({_PAIRS})?"),
    _text(
        "target",
        "cuda_arch",
        '"auto", or architectures of NVIDIA GPUs as sm_89 or compute_75',
        pattern=r"auto|((sm|compute)_)?\d{2,3}[af]?(,((sm|compute)_)?\d{2,3}[af]?)*",
    ),
    _text("output", "directory", "a folder, relative to the current one", pattern=r"[^\0]+", field="output"),
    _choice("engine", "backend", get_args(BackendName)),
    _text(
        "engine",
        "interpreter",
        '"auto", or the Python that has mlc_llm: its path, or its environment\'s',
        pattern=r"[^\0]+",
    ),
)
SECTIONS = tuple(dict.fromkeys(key.section for key in KEYS if key.section))
_BY_PATH = {key.path: key for key in KEYS}
_REQUIRED = ("model.source", "quantization.mode")
_DEFAULTS = {f.name: f.default for f in fields(ExportPlan)}

Settings = dict[str, tuple[Any, str]]
"""section.key -> its value and the place that said so (a file, or "--set")."""


def parsed(text: str, failing: str) -> dict[str, Any]:
    """The TOML document `text`; UsageError that begins with `failing` where it is none."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:  # TOMLDecodeError is one, as is the word for a number of too many digits
        why = str(error)
    raise UsageError(
        f"{failing}: {why}.",
        remedy="Text needs quotes, truth is true or false, and a key may stand only once in its section.",
    )


def _did_you_mean(word: str, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    """`value` as TOML would write it, short."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return f'"{text}"'
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"a number of {value.bit_length()} bits"
    return str(value)


def _unknown_key(place: str, path: str) -> UsageError:
    section, _, name = path.rpartition(".")
    if section in SECTIONS:
        options = [k.name for k in KEYS if k.section == section]
        home = next((k.path for k in KEYS if k.name == name), "")
        near = f"It belongs to the section: {home}." if home else _did_you_mean(name, options)
        allowed = f"[{section}] has: {', '.join(options)}."
    else:
        tops = ["version", *(k.name for k in KEYS if k.section == TOP)]
        home = next((k.path for k in KEYS if k.name == name), "")
        near = f"It is written {home}." if home else _did_you_mean(path, [*tops, *_BY_PATH])
        allowed = f"Outside sections there are: {', '.join(tops)}."
    return UsageError(f"{place}: unknown key {path}.", why=allowed, remedy=near)


def _unknown_section(place: str, section: str) -> UsageError:
    return UsageError(
        f"{place}: unknown section [{section}].",
        why=f"Sections are: {', '.join(SECTIONS)}.",
        remedy=_did_you_mean(section, SECTIONS),
    )


def _check_version(document: Mapping[str, Any], place: str) -> None:
    if "version" not in document:
        raise UsageError(
            f"{place}: the key version is missing.",
            remedy=f"Write version = {VERSION} on the first line.",
        )
    found = document["version"]
    if type(found) is int and found > VERSION:
        raise UsageError(
            f"{place}: version = {found} is newer than this program, which reads version {VERSION}.",
            remedy="Upgrade with: pip install --upgrade mlc-wizard",
        )
    if type(found) is not int or found != VERSION:
        raise UsageError(
            f"{place}: version = {_shown(found)} is not a preset version.", why=f"Allowed: {VERSION}."
        )


def settings_of(document: Mapping[str, Any], place: str) -> Settings:
    """The settings of a parsed TOML document that came from `place`.

    Raises UsageError for another version and for sections and keys that have no meaning.
    """
    _check_version(document, place)
    found: Settings = {}
    for name, value in document.items():
        if name == "version":
            continue
        if name in SECTIONS:
            if not isinstance(value, Mapping):
                raise UsageError(
                    f"{place}: {name} = {_shown(value)}, but {name} is a section.",
                    remedy=f"Write [{name}] on a line of its own and its keys below it.",
                )
            found |= {f"{name}.{key}": (inner, place) for key, inner in value.items()}
        elif isinstance(value, Mapping):
            raise _unknown_section(place, name)
        else:
            found[name] = (value, place)
    for path in found:
        if path not in _BY_PATH:
            raise _unknown_key(place, path)
    return found


def override(text: str) -> Settings:
    """The setting that `--set section.key=value` states; the value is TOML, or else plain text.

    Raises UsageError naming "--set" for a missing "=", an unknown section or key.
    """
    path, equals, raw = (part.strip() for part in text.partition("="))
    if not equals or not path:
        raise UsageError(
            f"--set: {text!r} is not section.key=value.",
            remedy="For example: --set quantization.mode=q4f32_1",
        )
    if path not in _BY_PATH:
        section = path.partition(".")[0]
        if "." in path and section not in SECTIONS:
            raise _unknown_section("--set", section)
        raise _unknown_key("--set", path)
    try:
        found = parsed(f"value = {raw}", "")
    except UsageError:
        found = {"value": raw}
    value = found["value"] if len(found) == 1 else raw
    if _BY_PATH[path].type is str and not isinstance(value, str):
        value = raw  # a revision may be all digits, and nobody quotes one on a command line
    return {path: (value, "--set")}


def _checked(key: Key, value: Any, place: str) -> Any:
    """`value` if `key` may have it, in place of an alias what it stands for; bool is no int, as in TOML."""
    names = {bool: "true or false", int: "a whole number", str: "text"}
    what = f"{place}: {key.path} = {_shown(value)}"
    if type(value) is not key.type:
        raise UsageError(f"{what} is not {names[key.type]}.", why=f"Allowed: {key.allowed}.")
    if isinstance(value, str):
        value = key.aliases.get(value, value)
    if not key.accepts(value):
        near = _did_you_mean(value, key.choices) if isinstance(value, str) else ""
        raise UsageError(f"{what} is not allowed.", why=f"Allowed: {key.allowed}.", remedy=near)
    return value


def plan_of(settings: Settings, place: str, base: Path) -> ExportPlan:
    """The plan that `settings` describe; a relative `model.source` is taken from the folder `base`.

    Raises UsageError naming place, section.key, what was found and what is allowed.
    """
    chosen = {_BY_PATH[p].field: _checked(_BY_PATH[p], v, where) for p, (v, where) in settings.items()}
    for path in _REQUIRED:
        if path not in settings:
            key = _BY_PATH[path]
            raise UsageError(
                f"{place}: {path} is missing.",
                why=f"Allowed: {key.allowed}.",
                remedy=f"Add {key.name} under [{key.section}], or give --set {path}=...",
            )
    prefill, context = chosen.get("prefill_chunk_size", 0), chosen.get("context_window_size", -1)
    if 0 < context < prefill:
        raise UsageError(
            f"{settings['context.prefill_chunk_size'][1]}: context.prefill_chunk_size = {prefill} is above "
            f"context.context_window_size = {context}.",
            why="A chunk of the prompt can never be longer than the whole context.",
            remedy=f"Choose a prefill_chunk_size from 1 to {context}.",
        )
    for name, read in (("source", source.from_preset), ("lora_adapter", source.adapter_from_preset)):
        if not chosen.get(name):
            continue
        where = settings[f"model.{name}"][1]
        try:
            # The file's folder for the file's own path, the current one for a path given with --set.
            chosen[name] = read(chosen[name], Path.cwd() if where == "--set" else base)
        except UsageError as error:
            raise UsageError(f"{where}: {error.what}", why=error.why, remedy=error.remedy) from None
    if chosen.get("interpreter", "auto") != "auto":
        where = settings["engine.interpreter"][1]
        named = (Path.cwd() if where == "--set" else base) / paths.expanded(chosen["interpreter"])
        chosen["interpreter"] = os.path.abspath(named)  # noqa: PTH100  links lead out of environments
    if "output" in chosen:
        chosen["output"] = paths.expanded(chosen["output"])
    return ExportPlan(**chosen)


def document_of(plan: ExportPlan) -> dict[str, Any]:
    """The TOML document of `plan`: every choice, in the order of KEYS; what is None is left out."""
    document: dict[str, Any] = {"version": VERSION}
    for key in KEYS:
        value = getattr(plan, key.field)
        if value is None:
            continue
        home = document.setdefault(key.section, {}) if key.section else document
        home[key.name] = value.as_posix() if isinstance(value, Path) else value
    return document


def apply(document: Mapping[str, Any], overrides: Sequence[str], place: str, base: Path) -> ExportPlan:
    """A parsed document and the overrides after it, the last of which wins, as a plan."""
    settings = settings_of(document, place)
    for text in overrides:
        settings |= override(text)
    return plan_of(settings, place, base)
