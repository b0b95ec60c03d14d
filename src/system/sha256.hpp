#pragma once

#include <string>
#include <string_view>

namespace moevar {

/// SHA-256 of the bytes, 64 lower-case hexadecimal digits. Throws LibraryError.
std::string sha256(std::string_view bytes);

}  // namespace moevar
