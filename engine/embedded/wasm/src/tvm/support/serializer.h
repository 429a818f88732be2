// The stream format of TVM's serialized modules, as its compiler writes it.
//
// Numbers lie little-endian at their own width; an enumeration is its underlying number; text and
// every container is a 64-bit count followed by its items, a mapping's item being key then value.
#ifndef TVM_SUPPORT_SERIALIZER_H_
#define TVM_SUPPORT_SERIALIZER_H_

#include <dlpack/dlpack.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/endian.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

static_assert(TVM_FFI_LITTLE_ENDIAN, "WebAssembly memory is little-endian");

template <typename T>
struct Serializer<T, std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T>>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, T* value) { return stream->Read(value, sizeof(T)) == sizeof(T); }
  static void Write(Stream* stream, const T& value) { stream->Write(&value, sizeof(T)); }
};

// Reads a count, then that many items, each handed to `store`.
template <typename Item, typename Store>
bool ReadItems(Stream* stream, Store store) {
  uint64_t count = 0;
  if (!stream->Read(&count)) return false;
  for (uint64_t i = 0; i < count; ++i) {
    Item item;
    if (!stream->Read(&item)) return false;
    store(std::move(item));
  }
  return true;
}

template <typename Container>
void WriteItems(Stream* stream, const Container& items) {
  stream->Write(static_cast<uint64_t>(items.size()));
  for (const auto& item : items) stream->Write(item);
}

template <typename A, typename B>
struct Serializer<std::pair<A, B>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, std::pair<A, B>* pair) {
    return stream->Read(&pair->first) && stream->Read(&pair->second);
  }
  static void Write(Stream* stream, const std::pair<A, B>& pair) {
    stream->Write(pair.first);
    stream->Write(pair.second);
  }
};

template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, std::string* text) {
    uint64_t size = 0;
    if (!stream->Read(&size)) return false;
    text->resize(static_cast<size_t>(size));
    return stream->Read(text->data(), text->size()) == text->size();
  }
  static void Write(Stream* stream, const std::string& text) {
    stream->Write(static_cast<uint64_t>(text.size()));
    stream->Write(text.data(), text.size());
  }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, ffi::String* text) {
    std::string read;
    if (!stream->Read(&read)) return false;
    *text = ffi::String(std::move(read));
    return true;
  }
  static void Write(Stream* stream, const ffi::String& text) {
    stream->Write(static_cast<uint64_t>(text.size()));
    stream->Write(text.data(), text.size());
  }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, std::vector<T>* items) {
    items->clear();
    return ReadItems<T>(stream, [items](T&& item) { items->push_back(std::move(item)); });
  }
  static void Write(Stream* stream, const std::vector<T>& items) { WriteItems(stream, items); }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, ffi::Array<T>* items) {
    *items = ffi::Array<T>();
    return ReadItems<T>(stream, [items](T&& item) { items->push_back(std::move(item)); });
  }
  static void Write(Stream* stream, const ffi::Array<T>& items) { WriteItems(stream, items); }
};

template <typename K, typename V>
struct Serializer<std::unordered_map<K, V>> {
  static constexpr bool enabled = true;
  using Item = std::pair<K, V>;
  static bool Read(Stream* stream, std::unordered_map<K, V>* map) {
    map->clear();
    return ReadItems<Item>(stream, [map](Item&& item) { map->insert(std::move(item)); });
  }
  static void Write(Stream* stream, const std::unordered_map<K, V>& map) {
    WriteItems(stream, std::vector<Item>(map.begin(), map.end()));
  }
};

template <typename K, typename V>
struct Serializer<ffi::Map<K, V>> {
  static constexpr bool enabled = true;
  using Item = std::pair<K, V>;
  static bool Read(Stream* stream, ffi::Map<K, V>* map) {
    *map = ffi::Map<K, V>();
    uint64_t count = 0;
    if (!stream->Read(&count)) return false;
    for (uint64_t i = 0; i < count; ++i) {
      K key;
      V value;
      if (!stream->Read(&key) || !stream->Read(&value)) return false;
      map->Set(std::move(key), std::move(value));
    }
    return true;
  }
  static void Write(Stream* stream, const ffi::Map<K, V>& map) {
    stream->Write(static_cast<uint64_t>(map.size()));
    for (const auto& item : map) {
      stream->Write(item.first);
      stream->Write(item.second);
    }
  }
};

template <>
struct Serializer<DLDataType> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, DLDataType* dtype) {
    return stream->Read(&dtype->code) && stream->Read(&dtype->bits) && stream->Read(&dtype->lanes);
  }
  static void Write(Stream* stream, const DLDataType& dtype) {
    stream->Write(dtype.code);
    stream->Write(dtype.bits);
    stream->Write(dtype.lanes);
  }
};

template <>
struct Serializer<DLDevice> {
  static constexpr bool enabled = true;
  static bool Read(Stream* stream, DLDevice* device) {
    int32_t type = 0;
    if (!stream->Read(&type) || !stream->Read(&device->device_id)) return false;
    device->device_type = static_cast<DLDeviceType>(type);
    return true;
  }
  static void Write(Stream* stream, const DLDevice& device) {
    stream->Write(static_cast<int32_t>(device.device_type));
    stream->Write(device.device_id);
  }
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_SERIALIZER_H_
