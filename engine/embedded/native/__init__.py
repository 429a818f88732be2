"""Libraries for devices other than browsers: host code linked by zig, kernels compiled where they need be.

What MLC's engine asks of them is in docs/native-contract.md.
"""
