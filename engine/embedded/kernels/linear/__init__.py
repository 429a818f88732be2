"""Matrix products with stored weights: y[n, N] = x[n, K] @ w[N, K].T, accumulated in float32.

Weights are read as they are stored and widened inside the kernel, so no dequantized copy of a
matrix ever exists. Activations are float32 for every quantization: what overflows float16 in
Gemma 3 is the residual stream and the gated product, not the weights.

Kernels are cached by their arguments: parsing one takes longer than all that follows, and the
layers of a model share them.
"""

from engine.embedded.kernels.linear.cpu import matmul_cpu
from engine.embedded.kernels.linear.gpu import gemm_gpu, gemv_gpu

__all__ = ["gemm_gpu", "gemv_gpu", "matmul_cpu"]
