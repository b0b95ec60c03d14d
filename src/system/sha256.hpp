#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace moevar {

/// SHA-256 of the bytes, 64 lower-case hexadecimal digits. Throws LibraryError.
std::string sha256(std::string_view bytes);

/// The same of a file's bytes from `offset` on. Throws EnvironmentError where it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path, std::uintmax_t offset = 0);

}  // namespace moevar
