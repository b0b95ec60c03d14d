#include "base/text.hpp"

#include <algorithm>

#include "base/tensor.hpp"

namespace moevar {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  Matrix<std::size_t> d({a.size() + 1, b.size() + 1});
  for (std::size_t i = 0; i <= a.size(); ++i) {
    d(i, 0) = i;
  }
  for (std::size_t j = 0; j <= b.size(); ++j) {
    d(0, j) = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = d(i - 1, j - 1) + (a[i - 1] == b[j - 1] ? 0 : 1);
      d(i, j) = std::min({d(i - 1, j) + 1, d(i, j - 1) + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d(i, j) = std::min(d(i, j), d(i - 2, j - 2) + 1);
      }
    }
  }
  return d(a.size(), b.size());
}

std::string_view nearest(std::string_view name, std::span<const std::string_view> candidates) {
  const auto closest = std::ranges::min_element(
      candidates, {}, [&](std::string_view candidate) { return edit_distance(name, candidate); });
  return closest == candidates.end() ? std::string_view{} : *closest;
}

std::string one_of(std::span<const std::string_view> candidates) {
  std::string text;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (i > 0) {
      text += i + 1 == candidates.size() ? " or " : ", ";
    }
    text += candidates[i];
  }
  return text;
}

std::string printable(std::string_view text, std::size_t limit) {
  std::string line(text.substr(0, limit));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      c = '?';
    }
  }
  return text.size() > limit ? line + "..." : line;
}

std::string ranges(std::span<const int> ascending) {
  std::string text;
  for (std::size_t begin = 0, end = 0; begin < ascending.size(); begin = end) {
    for (end = begin + 1; end < ascending.size() && ascending[end] == ascending[end - 1] + 1;) {
      ++end;
    }
    text += text.empty() ? "" : ",";
    text += std::to_string(ascending[begin]);
    if (end - begin > 1) {
      text += end - begin == 2 ? ',' : '-';
      text += std::to_string(ascending[end - 1]);
    }
  }
  return text;
}

}  // namespace moevar
