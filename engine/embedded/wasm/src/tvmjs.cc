// What WebLLM's JavaScript runtime (tvmjs) expects of a WebAssembly module beyond TVM's own runtime:
// the memory and callback functions it calls as exports, and the tvmjs.* functions it looks up.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/c_backend_api.h>
#include <tvm/runtime/logging.h>
#include <tvm/runtime/tensor.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>

#include "src/runtime/file_utils.h"

using tvm::ffi::Any;
using tvm::ffi::PackedArgs;
using tvm::runtime::Tensor;

extern "C" {

// Supplied by the page. Marked as imports one by one: any other undefined symbol fails the link.
#define SUPPLIED_BY_PAGE(name) __attribute__((import_module("env"), import_name(#name)))
SUPPLIED_BY_PAGE(TVMFFIWasmSafeCall)
int TVMFFIWasmSafeCall(void* self, const TVMFFIAny* args, int32_t num_args, TVMFFIAny* result);
SUPPLIED_BY_PAGE(TVMFFIWasmFunctionDeleter)
void TVMFFIWasmFunctionDeleter(void* self);

void* TVMWasmAllocSpace(int size) { return new int64_t[(static_cast<size_t>(size) + 7) / 8]; }

void TVMWasmFreeSpace(void* space) { delete[] static_cast<int64_t*>(space); }

int TVMFFIWasmFunctionCreate(void* resource, TVMFFIObjectHandle* out) {
  return TVMFFIFunctionCreate(resource, TVMFFIWasmSafeCall, TVMFFIWasmFunctionDeleter, out);
}

const char* TVMFFIWasmGetLastError() {
  static std::string message;
  tvm::ffi::Error error = tvm::ffi::details::MoveFromSafeCallRaised();
  message = error.kind() + ": " + error.message();
  return message.c_str();
}

// There are no symbols to walk in the shipped module; file and line are in the error already.
const TVMFFIByteArray* TVMFFIBacktrace(const char*, int, const char*, int) {
  static const TVMFFIByteArray kEmpty{"", 0};
  return &kEmpty;
}

int TVMBackendParallelLaunch(FTVMParallelLambda body, void* data, int) {
  TVMParallelGroupEnv group{};
  group.num_task = 1;
  return body(0, &group, data);
}

int TVMBackendParallelBarrier(int, TVMParallelGroupEnv*) { return 0; }

}  // extern "C"

namespace tvm {
namespace runtime {

void LoadBinaryFromFile(const std::string& file_name, std::string*) {
  TVM_FFI_THROW(RuntimeError) << "Cannot read " << file_name << ": a page has no files.";
}

void SaveBinaryToFile(const std::string& file_name, const std::string&) {
  TVM_FFI_THROW(RuntimeError) << "Cannot write " << file_name << ": a page has no files.";
}

namespace detail {

void LogFatalImpl(const std::string& file, int line, const std::string& message) {
  std::fprintf(stderr, "%s:%d: %s\n", file.c_str(), line, message.c_str());
  TVM_FFI_THROW(InternalError) << message;
}

void LogMessageImpl(const std::string& file, int line, int level, const std::string& message) {
  std::FILE* stream = level >= TVM_LOG_LEVEL_WARNING ? stderr : stdout;
  std::fprintf(stream, "%s:%d: %s\n", file.c_str(), line, message.c_str());
}

}  // namespace detail

namespace {

// The elements of a contiguous f32 tensor in wasm memory; bounds are checked because the shape and
// the bytes come from two different files of the model.
float* Float32Data(const Tensor& tensor, uint64_t expected_nbytes_bf16) {
  TVM_FFI_CHECK(tensor->device.device_type == kDLCPU && tensor.IsContiguous(), ValueError)
      << "bfloat16 decoding needs a contiguous tensor in CPU memory";
  TVM_FFI_CHECK(tensor->dtype.code == kDLFloat && tensor->dtype.bits == 32 && tensor->dtype.lanes == 1,
                TypeError)
      << "bfloat16 decodes to float32";
  const uint64_t nbytes = ffi::GetDataSize(*tensor.operator->());
  TVM_FFI_CHECK(expected_nbytes_bf16 * 2 == nbytes, ValueError)
      << "a float32 tensor of " << nbytes << " bytes cannot hold " << expected_nbytes_bf16
      << " bytes of bfloat16";
  return reinterpret_cast<float*>(static_cast<char*>(tensor->data) + tensor->byte_offset);
}

// bfloat16 is the upper half of a float32. Backwards, so that `source` may be the start of `target`.
void DecodeBFloat16(const char* source, float* target, size_t count) {
  for (size_t i = count; i-- > 0;) {
    uint16_t half;
    std::memcpy(&half, source + 2 * i, sizeof(half));
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    std::memcpy(target + i, &bits, sizeof(bits));
  }
}

// `encoded`, as a shard stores it, into `tensor` in wasm memory.
void DecodeStorage(Tensor tensor, TVMFFIByteArray* encoded, ffi::String format, ffi::String dtype) {
  if (format == "f32-to-bf16" && dtype == "float32") {
    DecodeBFloat16(encoded->data, Float32Data(tensor, encoded->size), encoded->size / 2);
  } else {
    tensor.CopyFromBytes(encoded->data, encoded->size);
  }
}

void DecodeBFloat16InPlace(Tensor tensor, int64_t encoded_nbytes) {
  float* data = Float32Data(tensor, static_cast<uint64_t>(encoded_nbytes));
  DecodeBFloat16(reinterpret_cast<const char*>(data), data, static_cast<size_t>(encoded_nbytes) / 2);
}

// The items of all given arrays, in order.
void ArrayConcat(PackedArgs args, Any* result) {
  ffi::Array<Any> joined;
  for (int i = 0; i < args.size(); ++i) {
    for (const Any& item : args[i].cast<ffi::Array<Any>>()) joined.push_back(item);
  }
  *result = joined;
}

// [n_i, hidden] tensors of one device and dtype, joined to [sum n_i, hidden].
void ConcatEmbeddings(PackedArgs args, Any* result) {
  TVM_FFI_CHECK(args.size() > 0, ValueError) << "no embeddings to join";
  const Tensor first = args[0].cast<Tensor>();
  TVM_FFI_CHECK(first->ndim == 2, ValueError) << "embeddings are [tokens, hidden]";
  int64_t tokens = 0;
  for (int i = 0; i < args.size(); ++i) {
    const Tensor part = args[i].cast<Tensor>();
    TVM_FFI_CHECK(part->ndim == 2 && part->shape[1] == first->shape[1], ValueError)
        << "embeddings of different widths";
    tokens += part->shape[0];
  }
  Tensor joined = Tensor::Empty({tokens, first->shape[1]}, first->dtype, first->device);
  uint64_t offset = 0;
  for (int i = 0; i < args.size(); ++i) {
    const Tensor part = args[i].cast<Tensor>();
    DLTensor target = *joined.operator->();
    target.shape = part->shape;
    target.byte_offset = offset;
    Tensor::CopyFromTo(part.operator->(), &target);
    offset += ffi::GetDataSize(*part.operator->());
  }
  *result = joined;
}

ffi::Bytes TensorCopyToBytes(Tensor tensor) {
  std::string bytes(ffi::GetDataSize(*tensor.operator->()), '\0');
  tensor.CopyToBytes(bytes.data(), bytes.size());
  return ffi::Bytes(std::move(bytes));
}

}  // namespace

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("tvmjs.array.decode_storage", DecodeStorage)
      .def("tvmjs.array.decode_bf16_to_f32_inplace", DecodeBFloat16InPlace)
      .def_packed("tvmjs.runtime.ArrayConcat", ArrayConcat)
      .def_packed("tvmjs.runtime.ConcatEmbeddings", ConcatEmbeddings)
      .def("tvmjs.runtime.TensorCopyFromBytes",
           [](Tensor tensor, TVMFFIByteArray* bytes) { tensor.CopyFromBytes(bytes->data, bytes->size); })
      .def("tvmjs.runtime.TensorCopyToBytes", TensorCopyToBytes);
}

}  // namespace runtime
}  // namespace tvm
