#include "record/seal.hpp"

#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "base/error.hpp"
#include "system/sha256.hpp"

namespace moevar::record {

namespace {

namespace fs = std::filesystem;

std::string head_of(std::uintmax_t size) {
  return fmt::format("moevar: a whole file\nbytes {}\nsha256 ", size);
}

/// The seal of a file of `size` bytes with that digest of what follows the seal.
std::string text_of(std::uintmax_t size, std::string_view digest) {
  auto text = fmt::format("{}{}\n", head_of(size), digest);
  text.resize(kSealBytes, '\0');
  return text;
}

}  // namespace

void seal(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  const auto text = text_of(size, sha256_of_file(path, kSealBytes));
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (error || !file) {
    throw EnvironmentError(fmt::format("cannot write {}", path.string()));
  }
}

bool is_whole(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error || size < kSealBytes) {
    return false;
  }
  std::string text(kSealBytes, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    throw EnvironmentError(fmt::format("cannot read {}", path.string()));
  }
  // the size first: a file that was cut off need not be read
  return text.starts_with(head_of(size)) && text == text_of(size, sha256_of_file(path, kSealBytes));
}

}  // namespace moevar::record
