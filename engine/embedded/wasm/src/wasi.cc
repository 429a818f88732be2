// The few symbols that a C++ program for wasm32-wasi leaves to its host and that WebLLM does not supply.
#include <cstdint>

// The one exception tag of C++: throw and catch carry a pointer under it. No library defines it.
__asm__(
    ".globl __cpp_exception\n"
    ".tagtype __cpp_exception i32\n"
    "__cpp_exception:\n");

extern "C" {

// Runs at the end of a thread. The page's only thread ends with the page.
int __cxa_thread_atexit(void (*)(void*), void*, void*) { return 0; }

// The C library asks whether stdout is a terminal; 8 is WASI's EBADF, which it takes for "no".
int32_t __imported_wasi_snapshot_preview1_fd_fdstat_get(int32_t, int32_t) { return 8; }

}  // extern "C"
