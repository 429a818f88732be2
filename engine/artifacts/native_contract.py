"""Will MLC's own engine take this library? Asked of the library itself, loaded in this process.

What that engine looks up is in docs/native-contract.md; it stops at the first thing that it misses, often
not before the first message.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.artifacts.report import Report

NAME = "native contract"
FUNCTIONS = (
    *("embed", "alloc_embedding_tensor", "prefill", "decode", "batch_prefill", "batch_decode"),
    *("create_tir_paged_kv_cache", "softmax_with_temperature"),
    *("apply_logit_bias_inplace", "apply_penalty_inplace", "apply_bitmask_inplace"),
)
"""What every device needs."""
SAMPLING = (
    *("multinomial_from_uniform", "argsort_probs", "sample_with_top_p"),
    *("sampler_take_probs", "renormalize_by_top_p"),
)
"""What devices that sample by themselves need besides."""
SAMPLING_DEVICES = frozenset({"cuda", "vulkan", "metal", "iphone", "macabi"})


def verify(library: Path, device: str, config: Mapping[str, Any], report: Report) -> bool:
    """Check `library`, made for `device`, beside the export's mlc-chat-config.json; whether it holds."""
    # The compiler's runtime is loaded only where there is a library to ask.
    import tvm
    from tvm import relax

    try:
        executable = tvm.runtime.load_module(str(library))
        machine = relax.VirtualMachine(executable, tvm.cpu())
        metadata = json.loads(str(machine["_metadata"]()))
    except (RuntimeError, ValueError, AttributeError, OSError) as error:
        return report.add(NAME, [f"{library.name} cannot be loaded: {_last_line(error)}"], "")
    wanted = (*FUNCTIONS, *(SAMPLING if device in SAMPLING_DEVICES else ()))
    problems = [f"{name} is missing" for name in wanted if not machine.module.implements_function(name)]
    problems += metadata_problems(metadata)
    for key in ("model_type", "quantization"):
        if key in metadata and metadata[key] != config.get(key):
            problems.append(f"it was compiled for {metadata[key]}, not for the export's {config.get(key)}")
    fine = f"{len(wanted)} functions and _metadata, as MLC's engine asks for them"
    return report.add(NAME, [f"{library.name}: {problem}" for problem in problems], fine)


def _last_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[-1]


def _is_int(value: Any, least: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def _is_param(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("dtype"), str)
        and isinstance(value.get("preprocs"), list)
        and isinstance(value.get("shape"), list)
        and all(isinstance(size, str) or _is_int(size, 0) for size in value["shape"])
    )


_CACHE = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
_METADATA: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model_type": (lambda v: isinstance(v, str), "a text"),
    "quantization": (lambda v: isinstance(v, str), "a text"),
    "context_window_size": (_is_int, "a whole number"),
    "sliding_window_size": (_is_int, "a whole number"),
    "attention_sink_size": (_is_int, "a whole number"),
    "prefill_chunk_size": (lambda v: _is_int(v, 1), "a positive whole number"),
    "max_batch_size": (lambda v: _is_int(v, 1), "a positive whole number"),
    "tensor_parallel_shards": (lambda v: _is_int(v, 1) and v == 1, "1"),
    "kv_cache": (
        lambda v: isinstance(v, dict) and all(_is_int(v.get(key), 1) for key in _CACHE),
        f"an object with {', '.join(_CACHE)}",
    ),
    "params": (
        lambda v: isinstance(v, list) and all(map(_is_param, v)),
        "a list of objects with name, shape, dtype and preprocs",
    ),
    "memory_usage": (
        lambda v: isinstance(v, dict) and all(_is_int(size, 0) for size in v.values()),
        "an object of bytes",
    ),
}


def metadata_problems(metadata: Any) -> list[str]:
    """What of `_metadata` is missing or of another kind; the state of a model is a KV cache."""
    if not isinstance(metadata, dict):
        return ["its _metadata is no object"]
    problems = []
    for key, (fits, wanted) in _METADATA.items():
        if key not in metadata:
            problems.append(f"its _metadata has no {key}")
        elif not fits(metadata[key]):
            problems.append(f"{key} of its _metadata must be {wanted}")
    return problems
