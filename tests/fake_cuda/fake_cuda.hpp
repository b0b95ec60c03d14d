#pragma once

#include <initializer_list>

#include "stream_order.hpp"

namespace moevar::fake {

/// What a kernel, or anything else that a stream was given, does with memory: the program ends
/// where that races with something. nullptr: the host does it.
void used(const void* stream, const char* what, std::initializer_list<Bytes> reads,
          std::initializer_list<Bytes> writes);

template <class T>
Bytes memory(const T* values, std::size_t count) {
  return {values, count * sizeof(T)};
}

}  // namespace moevar::fake

/// The same for libraries that are loaded: one piece read and one written.
extern "C" void moevar_fake_cuda_used(const void* stream, const char* what, const void* read,
                                      std::size_t read_bytes, const void* written,
                                      std::size_t written_bytes);
