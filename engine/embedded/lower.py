"""From a relax module to code: the targets, the passes, and what memory the passes planned.

Nearly all kernels arrive scheduled. The few tensor expressions get TVM's default schedule, and no
fusion pass runs: what must be fused (dequantization into products and look-ups) is written fused.
"""

import difflib
import math
import os
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax import transform
from tvm.s_tir import Schedule, dlight
from tvm.target import Target
from tvm.target.codegen import llvm_get_cpu_archlist, llvm_get_system_cpu, llvm_is_valid_cpu
from tvm.tirx.analysis import undefined_vars

from engine.catalog import TARGETS
from engine.embedded import narrow
from engine.embedded.kernels import exponential
from engine.errors import StageError, UsageError
from engine.hosts import Host

_GPU_LIMITS = {"max_threads_per_block": 256, "max_shared_memory_per_block": 32768, "thread_warp_size": 1}
"""What the kernels keep to, and every device has; a warp of 1 promises nothing about neighbours."""
_WASM = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm", "vector-width": 128}
_KINDS = {"wgsl": "webgpu"}
_PLAIN = {"x86_64": "x86-64", "aarch64": "generic"}


def make_target(device: str, host: Host | None = None, *, cuda_arch: str = "") -> Target:
    """The TVM target of `device`, a name of the catalog.

    `host` is where the host code runs; None is the browser for webgpu, else this very processor. `cuda_arch`
    is the architecture that CUDA source is written for, sm_XY.

    Raises UsageError for a processor that LLVM does not know.
    """
    kernels = TARGETS[device].kernels
    if host is not None:
        _check_cpu(host)
        # Only kernels gain from a better processor than the plainest.
        cpu = _PLAIN[host.architecture] if kernels and not host.named_cpu else host.cpu
        code: dict[str, Any] = {"kind": "llvm", "mtriple": host.triple, "mcpu": cpu}
    else:
        code = _WASM if device == "webgpu" else {"kind": "llvm", "mcpu": llvm_get_system_cpu()}
    if not kernels:
        return Target(code)
    gpu = {"kind": _KINDS.get(kernels, kernels), **(_GPU_LIMITS if device != "webgpu" else {})}
    if kernels == "cuda":
        gpu = {"kind": "cuda", "arch": cuda_arch, **_GPU_LIMITS, "thread_warp_size": 32}
    return Target(gpu, host=code)


def _check_cpu(host: Host) -> None:
    # LLVM itself takes its plainest processor in place of one that it does not know.
    if not host.named_cpu or llvm_is_valid_cpu(host.named_cpu, host.triple):
        return
    names = [str(name) for name in llvm_get_cpu_archlist(Target({"kind": "llvm", "mtriple": host.triple}))]
    near = difflib.get_close_matches(host.named_cpu, names, n=3, cutoff=0.5)
    raise UsageError(
        f"--host ... -mcpu={host.named_cpu} is no processor of {host.architecture} that LLVM knows.",
        why=f"Similar ones are {', '.join(near)}."
        if near
        else f"It knows {', '.join(names[:8])} and others.",
        remedy="Name another, or leave -mcpu out.",
    )


def processor(target: Target) -> str:
    """The processor that the host code of `target` is for, as LLVM names it."""
    return str((target if target.kind.name == "llvm" else target.host).attrs.get("mcpu", ""))


def lower(mod: tvm.IRModule, target: Target, *, cache_elements: int | None = None) -> tvm.IRModule:
    """Legalized, scheduled and with memory planned; ready for `code`.

    `cache_elements` is what the pages of one layer's cache hold at most, None where that is not known.
    """
    if target.kind.name == "llvm":
        schedule = tirx.transform.prim_func_pass(_parallel_over_rows, opt_level=0, name="ParallelOverRows")
    else:
        schedule = dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())
    passes = [
        transform.RewriteDataflowReshape(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        # Kernels of reshapes that became views: a page compiles every shader it is given.
        transform.DeadCodeElimination(),
    ]
    with target:
        mod = tvm.transform.Sequential([transform.LegalizeOps(), schedule])(mod)
        if target.kind.name in narrow.KERNELS:
            mod = narrow.narrowed(mod, cache_elements)
        return tvm.transform.Sequential(passes)(mod)


def _parallel_over_rows(func: tirx.PrimFunc, _mod: tvm.IRModule, _context: object) -> tirx.PrimFunc:
    """An element by element kernel, its outer loop in parallel where that is over many tokens.

    LLVM makes vectors of the inner ones.
    """
    if "tirx.is_scheduled" in (func.attrs or {}):
        return func
    schedule = Schedule(tvm.IRModule({"main": func}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        for outer in schedule.get_loops(block)[:1]:
            if not isinstance(schedule.get(outer).extent, tirx.IntImm):
                schedule.parallel(outer)
    return schedule.mod["main"]


def planned_bytes(mod: tvm.IRModule) -> dict[str, int]:
    """Bytes that each relax function of a lowered module allocates at most: temporaries and results.

    Sizes that depend on the input are counted at the upper bounds that the function states.

    Raises StageError for a function that allocates without a bound.
    """
    return {
        gv.name_hint: _allocated_bytes(gv.name_hint, func)
        for gv, func in mod.functions_items()
        if isinstance(func, relax.Function)
    }


def _allocated_bytes(name: str, func: relax.Function) -> int:
    # Every call has a name of its own by now; a visit of all expressions takes a hundred times as long.
    values = [binding.value for block in func.body.blocks for binding in block.bindings]
    calls = [value for value in values if isinstance(value, relax.Call)]
    bounds = (func.attrs or {}).get("tir_var_upper_bound", {})
    total = 0
    for call in calls:
        op = getattr(call.op, "name", "")
        if op == "relax.memory.alloc_storage":
            total += _largest(name, call.args[0], bounds)[0]
        elif op == "relax.builtin.alloc_tensor":  # what the function returns
            bits = tvm.DataType(call.args[1].value).bits
            total += math.prod(_largest(name, call.args[0], bounds)) * bits // 8
    return total


def _largest(name: str, shape: relax.ShapeExpr, bounds: Mapping[str, int]) -> list[int]:
    """Each size of `shape` where variables are at their `bounds`."""
    analyzer = tvm.sym.Analyzer()
    for variable in {v for size in shape.values for v in undefined_vars(size)}:
        if variable.name not in bounds:
            raise StageError(
                f"{name} allocates {shape}: as many as its input is long.",
                why="A step allocates nothing that was not reserved, so every size needs an upper bound.",
            )
        extent = int(bounds[variable.name]) + 1
        analyzer.bind(variable, tvm.ir.Range.from_min_extent(0, extent))
    return [analyzer.const_int_bound(size).max_value for size in shape.values]


def code(mod: tvm.IRModule, target: Target, *, system_lib: bool, prefix: str = "") -> relax.VMExecutable:
    """Machine code or shaders, and the byte code of the relax functions.

    A system library's symbols begin with `prefix`.
    """
    passes = [
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ]
    if prefix:
        # TVM's own look at whether it is there, which system_lib=True asks for, fails on prefixes of up to
        # seven letters; the attribute by itself makes the library a system library.
        mod, system_lib = mod.with_attr("system_lib_prefix", prefix), False
    # Where a CUDA or Metal runtime is loaded, TVM would compile kernels by rules of its own: the same source
    # on every machine, and what becomes of it is decided in `native/`.
    os.environ["TVM_COMPILE_FORCE_FALLBACK"] = "1"
    exponential.register()
    with target:
        mod = tvm.transform.Sequential(passes)(mod)
        return relax.build(mod, target=target, relax_pipeline=None, system_lib=system_lib)
