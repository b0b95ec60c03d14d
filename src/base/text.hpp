#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moevar {

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
/// Source: optimal string alignment, Damerau (1964).
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate closest to `name`, the first of equals; empty where there is none.
std::string_view nearest(std::string_view name, std::span<const std::string_view> candidates);

/// "a, b or c": what to offer instead of something unknown.
std::string one_of(std::span<const std::string_view> candidates);

/// Text of the user's as it may stand in an error message: control characters become '?', and at
/// most `limit` bytes are kept.
std::string printable(std::string_view text, std::size_t limit = 80);

/// "0-3,8": ascending numbers with runs drawn together.
std::string ranges(std::span<const int> ascending);

}  // namespace moevar
