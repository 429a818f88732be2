// Base64 (RFC 4648 section 4) over another stream: how TVM puts a tensor into JSON.
#ifndef TVM_SUPPORT_BASE64_H_
#define TVM_SUPPORT_BASE64_H_

#include <tvm/support/io.h>

#include <cstdint>

namespace tvm {
namespace support {

class Base64OutStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit Base64OutStream(Stream* sink) : sink_(sink) {}

  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void* source, size_t size) final {
    const uint8_t* bytes = static_cast<const uint8_t*>(source);
    for (size_t i = 0; i < size; ++i) {
      held_ = held_ << 8 | bytes[i];
      if (++count_ == 3) Flush();
    }
    return size;
  }
  // Writes the last one or two bytes, padded; nothing may be written after it.
  void Finish() {
    if (count_ != 0) Flush();
  }

 private:
  void Flush() {
    static const char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    held_ <<= 8 * (3 - count_);
    char text[4] = {'=', '=', '=', '='};
    for (int i = 0; i <= count_; ++i) text[i] = kDigits[held_ >> (18 - 6 * i) & 63];
    sink_->Write(static_cast<const void*>(text), sizeof(text));
    held_ = 0;
    count_ = 0;
  }

  Stream* sink_;
  uint32_t held_ = 0;
  int count_ = 0;
};

class Base64InStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;

  explicit Base64InStream(Stream* source) : source_(source) {}

  void InitPosition() {
    held_ = 0;
    bits_ = 0;
  }
  // Stops at the padding and at anything that is not a digit of the alphabet.
  size_t Read(void* destination, size_t size) final {
    uint8_t* bytes = static_cast<uint8_t*>(destination);
    for (size_t done = 0; done < size; ++done) {
      while (bits_ < 8) {
        char digit = 0;
        int value = source_->Read(static_cast<void*>(&digit), 1) == 1 ? Value(digit) : -1;
        if (value < 0) return done;
        held_ = held_ << 6 | static_cast<uint32_t>(value);
        bits_ += 6;
      }
      bits_ -= 8;
      bytes[done] = static_cast<uint8_t>(held_ >> bits_ & 255);
    }
    return size;
  }
  size_t Write(const void*, size_t) final { return 0; }

 private:
  static int Value(char digit) {
    if (digit >= 'A' && digit <= 'Z') return digit - 'A';
    if (digit >= 'a' && digit <= 'z') return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9') return digit - '0' + 52;
    return digit == '+' ? 62 : digit == '/' ? 63 : -1;
  }

  Stream* source_;
  uint32_t held_ = 0;
  int bits_ = 0;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BASE64_H_
