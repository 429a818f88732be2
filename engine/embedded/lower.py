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

from engine.errors import StageError


def make_target(device: str) -> Target:
    """The TVM target of `device`: "cpu" (this machine) or "webgpu"."""
    if device == "webgpu":
        host = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm", "vector-width": 128}
        return Target({"kind": "webgpu"}, host=host)
    return Target({"kind": "llvm", "mcpu": llvm_get_system_cpu()})


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
    """Bytes of temporaries that each relax function of a lowered module allocates at most.

    Raises StageError for a function whose temporaries have no bound.
    """
    return {
        gv.name_hint: _storage_bytes(gv.name_hint, func)
        for gv, func in mod.functions_items()
        if isinstance(func, relax.Function)
    }


def _storage_bytes(name: str, func: relax.Function) -> int:
    total = 0

    def visit(expr: relax.Expr) -> None:
        nonlocal total
        if not isinstance(expr, relax.Call) or getattr(expr.op, "name", "") != "relax.memory.alloc_storage":
            return
        size = expr.args[0].values[0]
        if not isinstance(size, tirx.IntImm):
            raise StageError(
                f"{name} allocates {size} bytes: as many as its input is long.",
                why="A step allocates nothing that was not reserved, so every size needs an upper bound.",
            )
        total += int(size)

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
