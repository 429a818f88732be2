"""How large an export will be: arithmetic on shapes, nothing measured and nothing guessed.

For the models of WebLLM's own table these formulas give `vram_required_MB` to 0.02 MiB, the
temporary buffers excepted, for which they give a lower bound.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from engine.catalog import QUANTIZATIONS, Quantization
from engine.embedded.families.base import decoder_parameters
from engine.embedded.spec import DecoderSpec, Parameter
from engine.embedded.stored import StoredTensor, all_stored_tensors
from engine.embedded.weights import plan_shards, stored_nbytes
from engine.model.facts import ModelFacts
from engine.plan import ExportPlan, with_defaults
from engine.units import MIB

PORTABLE_BINDING_BYTES = 128 * MIB
"""maxStorageBufferBindingSize that every WebGPU device offers."""
PORTABLE_BUFFER_BYTES = 256 * MIB
"""maxBufferSize that every WebGPU device offers."""
WEBLLM_BUFFER_BYTES = 1024 * MIB
"""The most that WebLLM requests of a device for either; a larger buffer can never be made."""

_ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "uint32": 4}
_PAGE = 16  # tokens a page of the KV cache
# The memory that convert_weight promises to stay within: this much of the largest source tensor,
# and the interpreter with numpy.
_CONVERT_FACTOR, _CONVERT_BASE = 2.5, 250 * 10**6
# Model library, configuration and log; the library is 5 MB for a small model.
_OTHER_FILES_BYTES = 16 * MIB


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Sizes in bytes. `temporary_bytes`, and so `vram_bytes`, are lower bounds.

    `weight_bytes` is in memory; `disk_bytes` on disk, where float32 is stored as bfloat16, and so
    what a browser downloads; `fetch_bytes` is what comes from the Hub before the export.
    `largest_buffer_name` is a stored tensor, or says what it is.
    """

    parameter_count: int
    weight_bytes: int
    disk_bytes: int
    shards: int
    kv_cache_bytes: int
    temporary_bytes: int
    largest_buffer_bytes: int
    largest_buffer_name: str
    convert_ram_bytes: int
    disk_needed_bytes: int
    fetch_bytes: int = 0

    @property
    def vram_bytes(self) -> int:
        """Weights, KV cache and temporary buffers together."""
        return self.weight_bytes + self.kv_cache_bytes + self.temporary_bytes

    @property
    def bits_per_parameter(self) -> float:
        """Bits of memory a parameter."""
        return 8 * self.weight_bytes / self.parameter_count


def estimate(model: DecoderSpec | ModelFacts, plan: ExportPlan) -> Estimate:
    """What `plan` will make of `model`, its open sizes filled in by default.

    A DecoderSpec alone is taken to come from 16 bit weights and to have no tokenizer.
    Raises UsageError where the embedded compiler does not know the model.
    """
    quantization = QUANTIZATIONS[plan.quantization]
    if isinstance(model, ModelFacts):
        spec, parameters = model.decoder(), model.parameters
        plan = with_defaults(plan, model.max_context)
        largest_source, tokenizer = model.largest_tensor_bytes, model.tokenizer_bytes
    else:
        spec, parameters = model, decoder_parameters(model)
        plan = with_defaults(plan, None)
        largest_source, tokenizer = 2 * max(prod(p.shape) for p in parameters), 0
    packed = model.packed if isinstance(model, ModelFacts) and quantization.from_awq else ()
    stored = _stored(_Same(packed or parameters), quantization.name)
    kv_layer = kv_cache_bytes(spec, quantization, plan) // len(spec.layers)
    wide = "gate and up projections" if spec.gated_mlp else "up projection"
    name, largest = max(
        [
            stored.largest,
            ("the KV cache of one layer", kv_layer),
            (f"the {wide} of one prefill chunk", _gate_up_bytes(spec, quantization, plan)),
        ],
        key=lambda item: item[1],
    )
    return Estimate(
        parameter_count=_count(_Same(parameters)),
        weight_bytes=stored.memory_bytes,
        disk_bytes=stored.disk_bytes,
        shards=stored.shards,
        kv_cache_bytes=kv_layer * len(spec.layers),
        temporary_bytes=temporary_bytes(spec, quantization, plan),
        largest_buffer_bytes=largest,
        largest_buffer_name=name,
        convert_ram_bytes=int(_CONVERT_FACTOR * largest_source) + _CONVERT_BASE,
        disk_needed_bytes=stored.disk_bytes + tokenizer + _OTHER_FILES_BYTES,
        fetch_bytes=model.download_bytes if isinstance(model, ModelFacts) else 0,
    )


class _Same:
    """Parameters as the key of a cache: those of a model stay one object, and are hundreds to hash."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = parameters

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.parameters is other.parameters

    def __hash__(self) -> int:
        return id(self.parameters)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Bytes of all that a quantization makes of the parameters; `largest` is name and bytes in memory."""

    memory_bytes: int
    disk_bytes: int
    shards: int
    largest: tuple[str, int]


@lru_cache(maxsize=64)  # a screen asks for every quantization at every key, some of them four times
def _stored(same: _Same, quantization: str) -> _Stored:
    tensors = all_stored_tensors(same.parameters, QUANTIZATIONS[quantization])
    return _Stored(
        memory_bytes=sum(map(memory_bytes, tensors)),
        disk_bytes=sum(map(stored_nbytes, tensors)),
        shards=len(plan_shards(tensors)),
        largest=max(((t.name, memory_bytes(t)) for t in tensors), key=lambda item: item[1]),
    )


@lru_cache(maxsize=8)
def _count(same: _Same) -> int:
    return parameter_count(same.parameters)


def parameter_count(parameters: Iterable[Parameter]) -> int:
    """The number of elements of `parameters`."""
    return sum(prod(p.shape) for p in parameters)


def memory_bytes(tensor: StoredTensor) -> int:
    """The bytes of `tensor` once loaded."""
    return prod(tensor.shape) * _ITEMSIZE[tensor.dtype]


def kv_cache_bytes(spec: DecoderSpec, quantization: Quantization, plan: ExportPlan) -> int:
    """Keys and values of every layer for the whole context, in pages of 16 tokens, each sequence.

    2 * layers * key/value heads * head_dim * bytes an element * tokens. A rolling cache takes the place
    of the context; the runtime gives each of its sequences two pages more, to roll in.
    """
    tokens = max(plan.context_window_size or 0, plan.sliding_window_size or 0, 0)
    pages = -(-tokens // _PAGE) + (2 if (plan.sliding_window_size or -1) > 0 else 0)
    row = 2 * spec.num_key_value_heads * spec.head_dim * _ITEMSIZE[quantization.model_dtype]
    return len(spec.layers) * row * pages * _PAGE * plan.max_batch_size


def temporary_bytes(spec: DecoderSpec, quantization: Quantization, plan: ExportPlan) -> int:
    """A lower bound of the activations of one prefill chunk.

    chunk * bytes an element * (3 * intermediate + 2 * hidden + (heads + 2 * key/value heads) *
    head_dim), 2 * intermediate without a gate: exact for SmolLM2 in WebLLM's table, up to 1.5 times less
    than others take.
    """
    heads = spec.num_attention_heads + 2 * spec.num_key_value_heads
    width = (2 + spec.gated_mlp) * spec.intermediate_size + 2 * spec.hidden_size + heads * spec.head_dim
    return (plan.prefill_chunk_size or 0) * _ITEMSIZE[quantization.model_dtype] * width


def _gate_up_bytes(spec: DecoderSpec, quantization: Quantization, plan: ExportPlan) -> int:
    """The widest activation of one prefill chunk: [chunk, 2 * intermediate], half of it without a gate."""
    width = (1 + spec.gated_mlp) * spec.intermediate_size
    return (plan.prefill_chunk_size or 0) * width * _ITEMSIZE[quantization.model_dtype]
