"""Indices of 32 bits in sources of Metal and OpenCL kernels, unless a tensor has more elements than that."""

import json
import re
from typing import Any

import pytest
from exports import GOLDEN

from engine import hosts
from engine.embedded import library, lower, narrow

CONFIG = json.loads((GOLDEN / "llama" / "expected" / "mlc-chat-config.json").read_text(encoding="utf-8"))
CONFIG["model_config"]["num_hidden_layers"] = 1
HOSTS = {"android": "aarch64-linux-android", "metal": "arm64-apple-macos", "cpu": "x86_64-linux-gnu"}
# TVM's own copy of a page, for a sequence that forks, divides 64-bit numbers.
BY_TVM = {"copy_single_page_kernel"}


def kernels(device: str, **changes: Any) -> dict[str, str]:
    """The sources of the kernels of a library for `device`, by name, each with its parameters."""
    target = lower.make_target(device, hosts.parse(HOSTS[device]))
    plan = library.plan_of(CONFIG | changes)
    elements = library.cache_elements(plan)
    mod = lower.lower(library.build_module(plan, target), target, cache_elements=elements)
    [module] = lower.code(mod, target, system_lib=False).mod.imports[0].imports
    source = module.inspect_source()
    found: dict[str, str] = {}
    for part in re.split(r"(?=^(?:__)?kernel void |^struct \w+_args_t)", source, flags=re.MULTILINE):
        if name := re.search(r"\b([a-z]\w*_kernel)(?:_args_t)?\b", part):
            found[name[1]] = found.get(name[1], "") + part
    return found


def wide(found: dict[str, str]) -> set[str]:
    return {name for name, text in found.items() if re.search(r"\blong\b", text)}


@pytest.mark.parametrize("device", ["android", "metal"])
def test_of_a_small_model_they_all_are(device: str) -> None:
    found = kernels(device)
    assert len(found) > 20
    assert wide(found) <= BY_TVM


def test_pages_of_a_cache_that_is_too_large_are_counted_in_64() -> None:
    size = narrow.LIMIT // library.cache_elements(library.plan_of(CONFIG))
    assert wide(kernels("android", max_batch_size=size)) <= BY_TVM
    found = wide(kernels("android", max_batch_size=2 * size))
    assert {"attention_prefill_paged_kernel", "attention_decode_paged_kernel"} <= found
    assert not {name for name in found if name.startswith(("gem", "rms_norm", "rotate", "embedding"))}


def test_a_model_with_a_tensor_that_is_too_large_stays_as_it_is() -> None:
    vocabulary = 8 * narrow.LIMIT // CONFIG["model_config"]["hidden_size"]
    model = CONFIG["model_config"] | {"vocab_size": vocabulary}
    found = wide(kernels("android", vocab_size=vocabulary, model_config=model))
    assert {"embedding_kernel", "rms_norm_kernel", "attention_decode_paged_kernel"} <= found
