"""Quantizations and targets as tables, with one plain sentence each.

The names and their arithmetic are those of MLC LLM (`mlc_llm/quantization/quantization.py`).
"""

import sys
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import UsageError

ModelDtype = Literal["float16", "bfloat16", "float32"]
Layout = Literal["NK", "KN"]


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How weights are stored. `bits` is None where they are only cast to `model_dtype`.

    Group quantization stores, for each `group_size` elements along in_features, integers of
    `bits` bits packed lowest first into uint32 words, and one scale of `model_dtype`. `layout` is
    that of the words and scales of a linear layer: NK, a row for each of its out_features, or KN,
    the transpose; embeddings are NK always. `from_awq`: nothing is quantized here; the integers,
    zero points and scales of an AWQ checkpoint are taken over.
    """

    name: str
    model_dtype: ModelDtype
    sentence: str
    bits: int | None = None
    group_size: int = 32
    layout: Layout = "NK"
    quantize_embedding: bool = True
    quantize_final_fc: bool = True
    from_awq: bool = False

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
        """Whether kernels read float16, which WebGPU offers only with shader-f16."""
        return self.model_dtype == "float16"

    def runs_on(self, target: str) -> bool:
        """Whether `target` has the model dtype: WGSL, the language of WebGPU, has no bfloat16."""
        return not (target == "webgpu" and self.model_dtype == "bfloat16")


QUANTIZATIONS: dict[str, Quantization] = {
    q.name: q
    for q in (  # the usual ones first: they are offered in this order
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
        Quantization(
            name="q4f16_2",
            model_dtype="float16",
            bits=4,
            quantize_embedding=False,
            quantize_final_fc=False,
            sentence="As q4f16_1, but embedding and head stay 16 bit: larger, closer answers.",
        ),
        Quantization(
            name="q3f16_1",
            model_dtype="float16",
            bits=3,
            group_size=40,
            sentence="3 bit weights: the smallest, for large models that fit no other way.",
        ),
        Quantization(
            name="q4f16_autoawq",
            model_dtype="float16",
            bits=4,
            group_size=128,
            layout="KN",
            quantize_embedding=False,
            quantize_final_fc=False,
            from_awq=True,
            sentence="The 4 bit weights of an AWQ checkpoint, as they are: for those models only.",
        ),
        Quantization(
            name="q0bf16",
            model_dtype="bfloat16",
            sentence="Not quantized, bfloat16: exact for models published in it; not in browsers.",
        ),
        Quantization(
            name="q4bf16_1",
            model_dtype="bfloat16",
            bits=4,
            sentence="4 bit weights, bfloat16 scales: no float16 overflow; not in browsers.",
        ),
        Quantization(
            name="q4f16_0",
            model_dtype="float16",
            bits=4,
            layout="KN",
            sentence="As q4f16_1, matrices stored transposed: for libraries that want that layout.",
        ),
        Quantization(
            name="q3f16_0",
            model_dtype="float16",
            bits=3,
            group_size=40,
            layout="KN",
            sentence="As q3f16_1, matrices stored transposed: for libraries that want that layout.",
        ),
        Quantization(
            name="q4bf16_0",
            model_dtype="bfloat16",
            bits=4,
            layout="KN",
            sentence="As q4bf16_1, matrices stored transposed; not in browsers.",
        ),
    )
}

ALIASES = {"q4f16_awq": "q4f16_autoawq"}
"""Other names that documents use, and what they stand for."""


def check_target(quantization: Quantization, target: str) -> None:
    """Raise UsageError where `target` lacks the model dtype."""
    if not quantization.runs_on(target):
        raise UsageError(
            f"{quantization.name} cannot run on {target}.",
            why="WGSL, the language of WebGPU's shaders, has no bfloat16.",
            remedy=f"Choose {quantization.name.replace('bf16', 'f16')}, or one that computes in float32.",
        )


def sibling(quantization: Quantization, **changes: Any) -> Quantization | None:
    """The quantization that differs from `quantization` in `bits` or `model_dtype` as `changes` say.

    Of several the one with the same suffix, else the usual one, `_1`; none to or from an AWQ
    checkpoint, which has no other form.
    """
    wanted = {"bits": quantization.bits, "model_dtype": quantization.model_dtype} | changes
    found = [
        other
        for other in QUANTIZATIONS.values()
        if (other.bits, other.model_dtype) == (wanted["bits"], wanted["model_dtype"])
        and not (other.from_awq or quantization.from_awq)
    ]
    for suffix in (quantization.name[-2:], "_1"):
        for other in found:
            if other.name.endswith(suffix):
                return other
    return found[0] if found else None


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
