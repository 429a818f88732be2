// Included before every unit: what wasm32-wasi without threads leaves out of the C++ library.
//
// The C++ library that zig builds for this target has no threads, so <mutex> declares no mutex. A
// WebAssembly instance runs on one thread and a lock can never be contended: locking is a no-op.
#ifndef MLC_WIZARD_PRELUDE_H_
#define MLC_WIZARD_PRELUDE_H_

#define TVM_FFI_CMAKE_LITTLE_ENDIAN 1
#define TVM_FFI_USE_LIBBACKTRACE 0
#define TVM_FFI_BACKTRACE_ON_SEGFAULT 0
#define TVM_LOG_DEBUG 0
#define TVM_LOG_CUSTOMIZE 1

#include <mutex>

namespace std {

class mutex {
 public:
  void lock() {}
  void unlock() {}
  bool try_lock() { return true; }
};

class recursive_mutex : public mutex {};

template <typename... Mutexes>
class scoped_lock {
 public:
  explicit scoped_lock(Mutexes&...) {}
  scoped_lock(const scoped_lock&) = delete;
  scoped_lock& operator=(const scoped_lock&) = delete;
};

}  // namespace std

#endif  // MLC_WIZARD_PRELUDE_H_
