"""Compilers of kernels that are no packages of ours: another one makes another library of the same model."""

from collections.abc import Callable, Mapping

from engine import cuda
from engine.catalog import TARGETS
from engine.embedded.native import metal
from engine.plan import ExportPlan


def of(plan: ExportPlan, *, nvrtc: bool = True) -> Callable[[], Mapping[str, str]] | None:
    """What tells the versions of the compilers that a library for `plan` takes; None where it takes none.

    Without `nvrtc` CUDA kernels are compiled by nvcc alone, as mlc_llm does.
    """
    if plan.device in metal.SDKS:
        sdk = metal.SDKS[plan.device]
        return lambda: {"metal": metal.version(sdk) or "none: source"}
    target = TARGETS.get(plan.device)
    if target is not None and target.kernels == "cuda":
        return lambda: cuda.identity(plan.cuda_arch, nvrtc=nvrtc)
    return None
