#include "system/sha256.hpp"

#include <array>
#include <fstream>
#include <memory>
#include <openssl/evp.h>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar {

namespace {

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    check(context_ != nullptr &&
          EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == kSuccess);
  }
  void add(std::string_view bytes) {
    check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == kSuccess);
  }
  std::string finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    check(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == kSuccess);
    std::string text;
    for (unsigned i = 0; i < length; ++i) {
      text += fmt::format("{:02x}", digest.at(i));
    }
    return text;
  }

 private:
  static constexpr int kSuccess = 1;
  static void check(bool success) {
    if (!success) {
      throw LibraryError("EVP_Digest", "SHA-256 is not available");
    }
  }
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256(std::string_view bytes) {
  Digest digest;
  digest.add(bytes);
  return digest.finish();
}

std::string sha256_of_file(const std::filesystem::path& path, std::uintmax_t offset) {
  constexpr std::size_t kPiece = std::size_t{1} << 20U;
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  Digest digest;
  for (std::string piece(kPiece, '\0'); file;) {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    digest.add(std::string_view(piece).substr(0, static_cast<std::size_t>(file.gcount())));
  }
  if (!file.eof()) {
    throw EnvironmentError(fmt::format("cannot read {}", path.string()));
  }
  return digest.finish();
}

}  // namespace moevar
