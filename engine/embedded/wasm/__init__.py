"""The WebAssembly side of a WebLLM package: TVM's runtime for the browser, and the link with a model.

The runtime is compiled once per machine by zig's C++ compiler from the sources inside the installed
apache-tvm and apache-tvm-ffi wheels, plus the few in `src/`; no Emscripten is needed.
"""
