"""The WebAssembly runtime: its sources, how it is built and how a model library is linked with it."""
