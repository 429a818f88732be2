"""Quantizations and targets as tables, with one plain sentence each.

The names and their arithmetic are those of MLC LLM (`mlc_llm/quantization/quantization.py`).
"""

import sys
from dataclasses import dataclass
from typing import Any, Literal

ModelDtype = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How weights are stored. `bits` is None where they are only cast to `model_dtype`.

    Group quantization stores, for each `group_size` elements along in_features, integers of
    `bits` bits packed lowest first into uint32 words, and one scale of `model_dtype`.
    """

    name: str
    model_dtype: ModelDtype
    sentence: str
    bits: int | None = None
    group_size: int = 32
    quantize_embedding: bool = True

    @property
    def max_int(self) -> int:
        """The largest magnitude of a quantized integer: 7 for 4 bit, 3 for 3 bit."""
        assert self.bits is not None
        return int(2 ** (self.bits - 1)) - 1

    @property
    def elements_per_word(self) -> int:
        """How many integers one uint32 holds: 8 for 4 bit, 10 for 3 bit."""
        assert self.bits is not None
        return 32 // self.bits

    @property
    def needs_f16(self) -> bool:
        """Whether kernels compute in float16, which WebGPU offers only with shader-f16."""
        return self.model_dtype == "float16"


QUANTIZATIONS: dict[str, Quantization] = {
    q.name: q
    for q in (
        Quantization(
            name="q0f16",
            model_dtype="float16",
            sentence="Not quantized, 16 bit floats: the weights as most models are published.",
        ),
        Quantization(
            name="q0f32",
            model_dtype="float32",
            sentence="Not quantized, computed in 32 bit: the most faithful, twice the memory.",
        ),
        Quantization(
            name="q4f16_1",
            model_dtype="float16",
            bits=4,
            sentence="4 bit weights, 16 bit compute: the usual choice from 1 B parameters up.",
        ),
        Quantization(
            name="q4f32_1",
            model_dtype="float32",
            bits=4,
            sentence="4 bit weights, 32 bit compute: runs on every WebGPU device.",
        ),
    )
}


def sibling(quantization: Quantization, **changes: Any) -> Quantization | None:
    """The quantization that differs from `quantization` in `bits` or `model_dtype` only, if there is one."""
    wanted = {"bits": quantization.bits, "model_dtype": quantization.model_dtype} | changes
    for other in QUANTIZATIONS.values():
        same_layout = (
            other.bits is None or quantization.bits is None or other.name[-1] == quantization.name[-1]
        )
        if (other.bits, other.model_dtype) == (wanted["bits"], wanted["model_dtype"]) and same_layout:
            return other
    return None


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device the model library is compiled for; `suffixes` as the official compiler wants them."""

    name: str
    sentence: str
    suffixes: tuple[str, ...]


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target(
            name="webgpu",
            sentence="Browsers, through WebLLM.",
            suffixes=(".wasm",),
        ),
        Target(
            name="cpu",
            sentence="The processor of this machine.",
            suffixes=(".so", ".dylib", ".dll"),
        ),
        Target(
            name="cuda",
            sentence="NVIDIA GPUs.",
            suffixes=(".so", ".dll"),
        ),
        Target(
            name="metal",
            sentence="Macs with Apple silicon or Intel.",
            suffixes=(".so", ".dylib"),
        ),
        Target(
            name="vulkan",
            sentence="Desktop GPUs of any maker.",
            suffixes=(".so", ".dll"),
        ),
        Target(
            name="opencl",
            sentence="GPUs with an OpenCL driver.",
            suffixes=(".so", ".dll"),
        ),
        Target(
            name="iphone",
            sentence="iPhone and iPad apps.",
            suffixes=(".tar",),
        ),
        Target(
            name="android",
            sentence="Android apps on Adreno and Mali GPUs.",
            suffixes=(".tar", ".so"),
        ),
    )
}


def host_library_suffix() -> str:
    """The suffix of a shared library on this machine."""
    return {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
