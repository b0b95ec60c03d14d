#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/tensor.hpp"

/// Values as bytes and back, for a process of the same program that goes on with them: no layout
/// that outlives a version, and nothing that another machine's byte order could read.
namespace moevar {

/// Appends values to a text of bytes.
class ArchiveWriter {
 public:
  void operator()(bool value) { (*this)(static_cast<std::uint8_t>(value ? 1 : 0)); }
  template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) void operator()(const T& value) {
    put(&value, sizeof value);
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  void operator()(const std::vector<T>& values) {
    (*this)(std::uint64_t{values.size()});
    put(values.data(), values.size() * sizeof(T));
  }
  /// The elements of one whose shape the reader knows.
  template <class T, std::size_t Rank>
  void operator()(const Tensor<T, Rank>& tensor) {
    put(tensor.flat().data(), tensor.size() * sizeof(T));
  }
  template <class T>
  void operator()(const std::optional<T>& value) {
    (*this)(value.has_value());
    if (value) {
      (*this)(*value);
    }
  }

  [[nodiscard]] std::string take() && { return std::move(bytes_); }

 private:
  void put(const void* data, std::size_t size) {
    if (size > 0) {
      bytes_.append(static_cast<const char*>(data), size);
    }
  }
  std::string bytes_;
};

/// Takes them out in the order in which they went in. Throws InputError where there are too few.
class ArchiveReader {
 public:
  explicit ArchiveReader(std::string_view bytes) : left_(bytes) {}

  void operator()(bool& value) {
    std::uint8_t byte = 0;
    (*this)(byte);
    value = byte != 0;
  }
  template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) void operator()(T& value) {
    get(&value, sizeof value);
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  void operator()(std::vector<T>& values) {
    std::uint64_t count = 0;
    (*this)(count);
    if (count > left_.size() / sizeof(T)) {
      throw InputError("a saved state ends too early");
    }
    values.resize(count);
    get(values.data(), count * sizeof(T));
  }
  template <class T, std::size_t Rank>
  void operator()(Tensor<T, Rank>& tensor) {
    get(tensor.flat().data(), tensor.size() * sizeof(T));
  }
  template <class T>
  void operator()(std::optional<T>& value) {
    bool has = false;
    (*this)(has);
    value.reset();
    if (has) {
      (*this)(value.emplace());
    }
  }

  [[nodiscard]] bool at_end() const noexcept { return left_.empty(); }

 private:
  void get(void* data, std::size_t size) {
    if (size > left_.size()) {
      throw InputError("a saved state ends too early");
    }
    if (size > 0) {
      std::memcpy(data, left_.data(), size);
      left_.remove_prefix(size);
    }
  }
  std::string_view left_;
};

}  // namespace moevar
