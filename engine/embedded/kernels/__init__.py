"""Kernels of our own, written in TVM TIR."""
