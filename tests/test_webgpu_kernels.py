"""The harness that runs TVM functions in a real WebGPU, on functions whose results are plain to see."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import tirx as T
from webgpu_kernels.device import WebGPU


@T.prim_func(s_tir=True)
def scale_and_shift(vx: T.handle, vy: T.handle, scale: T.float32, shift: T.int32):
    T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
    n = T.int64()
    x = T.match_buffer(vx, (n,), "float32")
    y = T.match_buffer(vy, (n,), "float32")
    for bx in T.thread_binding(T.ceildiv(n, 64), thread="blockIdx.x"):
        for tx in T.thread_binding(64, thread="threadIdx.x"):
            with T.sblock("element"):
                if bx * 64 + tx < n:
                    y[bx * 64 + tx] = x[bx * 64 + tx] * scale + T.Cast("float32", shift)


@T.prim_func(s_tir=True)
def reverse(vx: T.handle, vy: T.handle):
    T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
    n = T.int64()
    x = T.match_buffer(vx, (n,), "float32")
    y = T.match_buffer(vy, (n,), "float32")
    for bx in T.thread_binding(T.ceildiv(n, 64), thread="blockIdx.x"):
        for tx in T.thread_binding(64, thread="threadIdx.x"):
            with T.sblock("element"):
                if bx * 64 + tx < n:
                    y[bx * 64 + tx] = x[n - 1 - (bx * 64 + tx)]


@T.prim_func(s_tir=True)
def barrier_in_a_branch(vx: T.handle):
    T.func_attr({"tirx.is_scheduled": True})
    x = T.match_buffer(vx, (64,), "float32")
    for _bx in T.thread_binding(1, thread="blockIdx.x"):
        for tx in T.thread_binding(64, thread="threadIdx.x"):
            with T.sblock("element"):
                held = T.sblock_alloc_buffer((64,), "float32", scope="shared")
                if x[tx] > T.float32(0):
                    held[tx] = x[tx]
                    T.tvm_storage_sync("shared")
                    x[tx] = held[63 - tx]


pytestmark = pytest.mark.browser


@pytest.mark.parametrize("n", [1, 64, 65, 70_000])
def test_a_kernel_computes_on_every_element(webgpu: WebGPU, n: int) -> None:
    x, y = np.arange(n, dtype=np.float32), np.zeros(n, np.float32)
    webgpu.call(scale_and_shift, x, y, 2.5, -3)
    np.testing.assert_array_equal(y, x * 2.5 - 3)


def test_a_relax_function_runs_its_kernels(webgpu: WebGPU) -> None:
    builder = relax.BlockBuilder()
    kind = relax.TensorType((tvm.tirx.Var("n", "int64"),), "float32")
    x = relax.Var("x", kind)
    kernel = builder.add_func(reverse, "reverse")
    with builder.function("twice", [x]):
        with builder.dataflow():
            once = builder.emit(relax.op.call_tir(kernel, [x], kind))
            twice = builder.emit_output(relax.op.call_tir(kernel, [once], kind))
        builder.emit_func_output(relax.Tuple([once, twice]))
    values = np.arange(100, dtype=np.float32)
    before = len(webgpu.dispatches)
    once_values, twice_values = webgpu.run(builder.get(), "twice", values)
    np.testing.assert_array_equal(once_values, values[::-1])
    np.testing.assert_array_equal(twice_values, values)
    assert webgpu.dispatches[before:] == ["reverse_kernel"] * 2


def test_invalid_device_code_is_an_error(webgpu: WebGPU) -> None:
    """A barrier that not every thread reaches is what browsers refuse; so must this harness."""
    with pytest.raises(Exception, match="workgroupBarrier"):
        webgpu.call(barrier_in_a_branch, np.ones(64, np.float32))
