#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"

/// What all targets share. A target takes any bytes; bytes that moevar refuses with InputError in
/// one line are fine, and everything else that is no success is a finding: another exception, a
/// sanitizer's report, too much memory or time, or a value that breaks what the reader promises.
namespace moevar::fuzz {

/// Ends the program, and with it the fuzzer, which then keeps the bytes.
[[noreturn]] inline void finding(std::string_view what, std::string_view detail = {}) {
  std::fprintf(stderr, "finding: %.*s: %.*s\n", static_cast<int>(what.size()), what.data(),
               static_cast<int>(detail.size()), detail.data());
  std::abort();
}

inline void require(bool holds, std::string_view what, std::string_view detail = {}) {
  if (!holds) {
    finding(what, detail);
  }
}

/// What a terminal shows as one line: no control character.
inline void require_one_line(std::string_view message) {
  const bool control = std::ranges::any_of(message, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20U || byte == 0x7FU;
  });
  require(!message.empty() && !control, "a message is not one line", message);
}

/// Whether `read` took its input; false where it refused it as readers do.
template <class Read>
bool accepted(const Read& read) {
  try {
    read();
    return true;
  } catch (const InputError& error) {
    require_one_line(error.what());
    return false;
  }
}

/// The input's first byte, which picks among a target's cases, and the text after it.
struct Case {
  unsigned choice = 0;
  std::string text;

  /// The next choice among `many`.
  int pick(unsigned many) {
    const unsigned taken = choice % many;
    choice /= many;
    return static_cast<int>(taken);
  }
};

inline Case split(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) {
    return {};
  }
  return {bytes.front(), std::string(bytes.begin() + 1, bytes.end())};
}

}  // namespace moevar::fuzz

/// libFuzzer calls this for every input.
// NOLINTNEXTLINE(readability-identifier-naming): the library's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
