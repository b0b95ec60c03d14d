#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::record {

/// A value for a message: a list or an object by its kind, as a deep one would overflow the stack.
inline std::string shown(const nlohmann::ordered_json& value) {
  return value.is_structured() ? value.type_name() : printable(value.dump(), 40);
}

/// A member of an object as a T. Throws InputError where it is no whole number that a T holds, for
/// which nlohmann-json's own conversion is undefined; what at() throws where there is none.
template <class T>
T whole_number(const nlohmann::ordered_json& object, const char* key) {
  const auto& value = object.at(key);
  const bool fits =
      value.is_number_unsigned()
          ? std::in_range<T>(value.template get<std::uint64_t>())
          : value.is_number_integer() && std::in_range<T>(value.template get<std::int64_t>());
  if (!fits) {
    throw InputError(fmt::format("{} is {}; expected a whole number from {} to {}", key,
                                 shown(value), std::numeric_limits<T>::min(),
                                 std::numeric_limits<T>::max()));
  }
  return value.template get<T>();
}

}  // namespace moevar::record
