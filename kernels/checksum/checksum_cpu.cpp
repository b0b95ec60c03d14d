#include "checksum/checksum.hpp"

namespace moevar::checksum {

std::uint64_t sum_cpu(std::span<const BFloat16> values, std::uint64_t first_word) noexcept {
  std::uint64_t sum = 0;
  std::size_t i = 0;
  for (; i + 1 < values.size(); i += 2) {
    sum += of_word(first_word + i / 2, word_of(values[i], values[i + 1]));
  }
  if (i < values.size()) {
    sum += of_word(first_word + i / 2, word_of(values[i], {}));
  }
  return sum;
}

}  // namespace moevar::checksum
