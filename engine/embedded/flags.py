"""`--opt`, `--overrides` and `--system-lib-prefix`, in the official compiler's spelling.

Their names, values and defaults are those of mlc_llm (`interface/compiler_flags.py`,
`support/auto_target.py`).
"""

import re
from collections.abc import Mapping

from engine.errors import UsageError

LEVELS = ("O0", "O1", "O2", "O3")
_SWITCH = ("0", "1")
KNOBS: Mapping[str, tuple[str, ...]] = {
    "flashinfer": _SWITCH,
    "cublas_gemm": _SWITCH,
    "faster_transformer": _SWITCH,
    "cudagraph": _SWITCH,
    "cutlass": _SWITCH,
    "ipc_allreduce_strategy": ("NONE", "ONESHOT", "TWOSHOT", "AUTO"),
}
OVERRIDES = (
    "context_window_size",
    "sliding_window_size",
    "prefill_chunk_size",
    "attention_sink_size",
    "max_batch_size",
)
_FIXED = {"tensor_parallel_shards": "1", "pipeline_parallel_stages": "1", "disaggregation": "false"}
_FALSE = ("false", "0", "no")


def pairs(flag: str, text: str) -> dict[str, str]:
    """`KEY=VALUE;KEY=VALUE` of `flag` as a table. Raises UsageError."""
    out: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(
                f"{flag}: {part!r} is not KEY=VALUE.", remedy=f"Write {flag} KEY=VALUE;KEY=VALUE"
            )
        out[key.strip()] = value.strip()
    return out


def unused_opt(text: str) -> tuple[str, ...]:
    """The parts of `--opt` that ask for what the embedded compiler does not have, for a note about them.

    It has one way to compile: O0 to O3 are the same, and the switches name libraries of NVIDIA's or parts
    of mlc_llm that its own kernels stand in for. Raises UsageError for what mlc_llm would not take.
    """
    if text in LEVELS:
        return ()
    for key, value in (given := pairs("--opt", text)).items():
        if key not in KNOBS or value not in KNOBS[key]:
            known = "; ".join(f"{name}={'|'.join(values)}" for name, values in KNOBS.items())
            raise UsageError(
                f"--opt: {key}={value} is no optimization.",
                why=f"It takes {', '.join(LEVELS)}, or switches: {known}.",
                remedy="Leave out --opt.",
            )
    if not given:
        raise UsageError("--opt is empty.", remedy=f"Leave it out, or choose one of {', '.join(LEVELS)}.")
    return tuple(f"{key}={value}" for key, value in given.items() if value not in ("0", "NONE"))


def parse_overrides(text: str) -> dict[str, int]:
    """The sizes of `--overrides`. Raises UsageError for what is none, or cannot be had here."""
    out: dict[str, int] = {}
    for key, value in pairs("--overrides", text).items():
        if key in _FIXED:
            if value != _FIXED[key] and not (key == "disaggregation" and value.lower() in _FALSE):
                raise UsageError(
                    f"--overrides: {key}={value} cannot be had: the embedded compiler makes libraries for "
                    "one device.",
                    remedy=f"Leave out {key}, or compile with mlc_llm.",
                )
        elif key not in OVERRIDES or not re.fullmatch(r"-?\d+", value):
            raise UsageError(
                f"--overrides: {f'{key}={value}'!r} is not KEY=NUMBER with one of {', '.join(OVERRIDES)}.",
                remedy='Write for example --overrides "context_window_size=4096;prefill_chunk_size=512".',
            )
        else:
            out[key] = int(value)
    return out


def system_lib_prefix(asked: str, *, static: bool, model_type: str, quantization: str) -> str:
    """The prefix of a static library's symbols; empty for a shared one, which needs none.

    "auto" is mlc_llm's own: MODELTYPE_QUANTIZATION_. An app names the library by the prefix without the
    last underscore, which its engine appends; so a prefix must end in one. Raises UsageError.
    """
    if not static:
        return ""
    if asked == "auto":
        return re.sub(r"\W", "_", f"{model_type}_{quantization}_")
    if asked and not re.fullmatch(r"[A-Za-z_]\w*_", asked, re.ASCII):
        raise UsageError(
            f"--system-lib-prefix {asked} cannot be the prefix of a library.",
            why="It is letters, digits and underscores, no digit first, and ends in an underscore: an app "
            "that names the library model_lib = NAME looks for symbols that begin with NAME_.",
            remedy=f"Write --system-lib-prefix {re.sub(r'[^A-Za-z0-9_]', '_', asked).rstrip('_')}_, "
            "or leave it out.",
        )
    return asked
