#include "base/error.hpp"

#include <array>
#include <unistd.h>

#include <fmt/format.h>

namespace moevar {

namespace {

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown host";
}

std::string_view base_name(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace

LibraryError::LibraryError(std::string_view call, std::string_view library_message,
                           SourceLocation where)
    : EnvironmentError(fmt::format("{}: {} ({}:{}, on {})", call, library_message,
                                   base_name(where.file), where.line, host_name())) {}

}  // namespace moevar
