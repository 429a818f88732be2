// The byte stream that TVM's runtime reads a compiled executable from.
#ifndef TVM_SUPPORT_IO_H_
#define TVM_SUPPORT_IO_H_

#include <cstddef>

namespace tvm {
namespace support {

// How a value of type T lies in a stream; the specializations are in serializer.h.
template <typename T, typename Enable = void>
struct Serializer {
  static constexpr bool enabled = false;
};

// Subclasses move raw bytes; typed values go through Serializer.
class Stream {
 public:
  virtual ~Stream() = default;

  // Both return the number of bytes moved, which is less than `size` only at the end of the data.
  virtual size_t Read(void* destination, size_t size) = 0;
  virtual size_t Write(const void* source, size_t size) = 0;

  template <typename T>
  bool Read(T* value) {
    static_assert(Serializer<T>::enabled, "this type has no stream format");
    return Serializer<T>::Read(this, value);
  }

  template <typename T>
  void Write(const T& value) {
    static_assert(Serializer<T>::enabled, "this type has no stream format");
    Serializer<T>::Write(this, value);
  }

  template <typename T>
  bool ReadArray(T* values, size_t count) {
    for (T* end = values + count; values != end; ++values) {
      if (!this->Read<T>(values)) return false;
    }
    return true;
  }

  template <typename T>
  void WriteArray(const T* values, size_t count) {
    for (const T* end = values + count; values != end; ++values) this->Write<T>(*values);
  }
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_IO_H_
