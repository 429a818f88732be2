"""Quantizations and targets as tables, with one plain sentence each.

The names and their arithmetic are those of MLC LLM (`mlc_llm/quantization/quantization.py`).
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from engine import hosts
from engine.errors import UsageError
from engine.hosts import Host, System

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


def quantization_named(name: str) -> Quantization:
    """The quantization of that name or alias. Raises UsageError, which lists them all, for any other."""
    if found := QUANTIZATIONS.get(ALIASES.get(name, name)):
        return found
    raise UsageError(f"Unknown quantization {name!r}.", remedy=f"Choose one of {', '.join(QUANTIZATIONS)}.")


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
    """A device the model library is compiled for; `suffixes` as the official compiler wants them.

    `systems` are those that its host code is made for, the first where no host is named and this
    machine's is none of them. `kernels` is the language that its kernels are in, empty where they are
    machine code. `lacks_codegen` says why the embedded compiler has none for it, else it is empty.
    """

    name: str
    sentence: str
    suffixes: tuple[str, ...]
    systems: tuple[System, ...] = ()
    kernels: Literal["", "wgsl", "cuda", "metal", "opencl"] = ""
    lacks_codegen: str = ""

    @property
    def runs_in(self) -> str:
        """Where a library that cannot be run here runs."""
        if not self.systems:
            return "a browser"
        return "an app on its device" if self.static else "MLC's engine, on such a machine"

    @property
    def static(self) -> bool:
        """Whether its library is objects to be linked into an app, in place of a shared library."""
        return self.suffixes[0] == ".tar"


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target(
            name="webgpu",
            sentence="Browsers, through WebLLM.",
            suffixes=(".wasm",),
            kernels="wgsl",
        ),
        Target(
            name="cpu",
            sentence="The processor of this machine.",
            suffixes=(".so", ".dylib", ".dll"),
            systems=("linux", "macos", "windows"),
        ),
        Target(
            name="cuda",
            sentence="NVIDIA GPUs.",
            suffixes=(".so", ".dll"),
            systems=("linux", "windows"),
            kernels="cuda",
        ),
        Target(
            name="metal",
            sentence="Macs, Apple silicon or Intel.",
            suffixes=(".so", ".dylib"),
            systems=("macos",),
            kernels="metal",
        ),
        Target(
            name="vulkan",
            sentence="Desktop GPUs of any maker.",
            suffixes=(".so", ".dll"),
            systems=("linux", "windows"),
            lacks_codegen="The TVM of PyPI is built without Vulkan's code generator.",
        ),
        Target(
            name="opencl",
            sentence="GPUs with an OpenCL driver.",
            suffixes=(".so", ".dll"),
            systems=("linux", "windows"),
            kernels="opencl",
        ),
        Target(
            name="iphone",
            sentence="iPhone and iPad apps.",
            suffixes=(".tar",),
            systems=("ios",),
            kernels="metal",
        ),
        Target(
            name="android",
            sentence="Android apps, Adreno or Mali.",
            suffixes=(".tar", ".so"),
            systems=("android",),
            kernels="opencl",
        ),
    )
}

COMPILED_HERE = tuple(name for name, target in TARGETS.items() if not target.lacks_codegen)
"""The targets that the embedded compiler makes libraries for; weights are the same for all."""

_LIBRARY = re.compile(r"model-(\w+)\.(wasm|so|dylib|dll|tar)")


def host_of(target: Target, host: str) -> Host:
    """Where the host code of `target` runs: what `host` names, or for "auto" this machine or its like.

    Raises UsageError for a host that the target is not made for.
    """
    if host == "auto":
        machine = hosts.here()
        if machine.system in target.systems:
            return machine
        apple = target.systems[0] in ("macos", "ios")
        # Phones and today's Macs are AArch64; a desktop GPU is most often in an x86-64 machine.
        arm = apple or target.systems[0] == "android"
        libc = "gnu" if target.systems[0] == "linux" else ""
        return Host(architecture="aarch64" if arm else "x86_64", system=target.systems[0], libc=libc)
    named = hosts.parse(host)
    if named.system not in target.systems:
        raise UsageError(
            f"A library for {target.name} cannot be made for {named}.",
            why=f"There is {target.name} on {' and '.join(target.systems)} only.",
            remedy="Leave out the host, or name another.",
        )
    return named


def library_suffix(target: Target, host: str = "auto") -> str:
    """The suffix of the library for `target`, on the system that `host` names.

    Raises UsageError as `host_of` does.
    """
    if target.static or not target.systems:
        return target.suffixes[0]
    named = host_of(target, host)
    if target.name == "metal":
        # As the official compiler has it: .so on Apple silicon, .dylib on Intel.
        return ".dylib" if named.architecture == "x86_64" else ".so"
    return named.suffix


def target_of(library: str) -> str:
    """The name of the target that a library called model-TARGET.SUFFIX is for; empty for other names."""
    match = _LIBRARY.fullmatch(library)
    return match[1] if match and match[1] in TARGETS else ""


def host_library_suffix() -> str:
    """The suffix of a shared library on this machine."""
    return hosts.here().suffix
