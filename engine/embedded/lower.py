"""From a relax module to code: the targets, the passes, and what memory the passes planned.

Nearly all kernels arrive scheduled. The few tensor expressions get TVM's default schedule, and no
fusion pass runs: what must be fused (dequantization into products and look-ups) is written fused.
"""

import tvm
from tvm import relax, tirx
from tvm.relax import transform
from tvm.s_tir import dlight
from tvm.target import Target
from tvm.target.codegen import llvm_get_system_cpu


def make_target(device: str, host_triple: str | None = None) -> Target:
    """The TVM target of `device`: "cpu" (this machine) or "webgpu"."""
    if device == "webgpu":
        host = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm", "vector-width": 128}
        return Target({"kind": "webgpu"}, host=host)
    if host_triple is None:
        return Target({"kind": "llvm", "mcpu": llvm_get_system_cpu()})
    return Target({"kind": "llvm", "mtriple": host_triple})


def lower(mod: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Legalized, scheduled and with memory planned; ready for `code`."""
    schedule = [dlight.ApplyDefaultSchedule(dlight.gpu.Fallback())] if target.kind.name != "llvm" else []
    passes = [
        transform.LegalizeOps(),
        *schedule,
        transform.RewriteDataflowReshape(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        # Kernels of reshapes that became views: a page compiles every shader it is given.
        transform.DeadCodeElimination(),
    ]
    with target:
        return tvm.transform.Sequential(passes)(mod)


def planned_bytes(mod: tvm.IRModule) -> dict[str, int]:
    """Bytes of temporaries that each relax function of a lowered module allocates at most."""
    return {
        gv.name_hint: _storage_bytes(func)
        for gv, func in mod.functions_items()
        if isinstance(func, relax.Function)
    }


def _storage_bytes(func: relax.Function) -> int:
    total = 0

    def visit(expr: relax.Expr) -> None:
        nonlocal total
        if not isinstance(expr, relax.Call) or getattr(expr.op, "name", "") != "relax.memory.alloc_storage":
            return
        size = expr.args[0].values[0]
        # A size that depends on a shape has no bound; a step of the decoder has none such.
        total += int(size) if isinstance(size, tirx.IntImm) else 0

    relax.analysis.post_order_visit(func, visit)
    return total


def code(mod: tvm.IRModule, target: Target, *, system_lib: bool) -> relax.VMExecutable:
    """Machine code or shaders, and the byte code of the relax functions."""
    passes = [
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ]
    with target:
        mod = tvm.transform.Sequential(passes)(mod)
        return relax.build(mod, target=target, relax_pipeline=None, system_lib=system_lib)
