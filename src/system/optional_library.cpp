#include "system/optional_library.hpp"

#include <cstddef>
#include <cstdlib>
#include <dlfcn.h>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "system/gpu.hpp"

namespace moevar {

namespace {

constexpr int kMajor = 10000;
constexpr int kMinor = 100;

/// Loads the first of `names` that is there and asks it with `ask(library)`, whose result is a
/// version, or negative where the library is another. The library stays loaded: to unload it leaks
/// what its initialisers took.
template <class Ask>
OptionalLibrary find(const char* variable, std::vector<std::string> names, const Ask& ask) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing in this program changes its environment
  const char* other = std::getenv(variable);
  if (other != nullptr && *other != '\0') {
    names = {other};
  }
  OptionalLibrary result;
  for (auto& name : names) {
    result.name = std::move(name);
    void* library = ::dlopen(result.name.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
      // NOLINTNEXTLINE(concurrency-mt-unsafe): dlerror is of this thread
      result.problem = ::dlerror();
      continue;
    }
    result.version = ask(library);
    result.found = result.version >= 0;
    result.problem = result.found ? "" : fmt::format("{} does not tell its version", result.name);
    break;
  }
  if (result.found) {
    result.readable = fmt::format("{}.{}.{}", result.version / kMajor,
                                  result.version / kMinor % kMinor, result.version % kMinor);
  }
  return result;
}

template <class F>
F* function_of(void* library, const char* name) {
  return reinterpret_cast<F*>(::dlsym(library, name));
}

}  // namespace

std::string OptionalLibrary::version_text() const {
  return found ? readable : version < 0 ? "unknown" : "none";
}

OptionalLibrary find_nccl() {
  return find("MOEVAR_NCCL", {"libnccl.so.2"}, [](void* library) {
    int version = -1;
    auto* const ask = function_of<int(int*)>(library, "ncclGetVersion");
    return ask != nullptr && ask(&version) == 0 ? version : -1;
  });
}

OptionalLibrary find_cublaslt() {
  const int built = gpu::runtime_version() / 1000;
  auto names = built > 0 ? std::vector{fmt::format("libcublasLt.so.{}", built)}
                         : std::vector<std::string>{"libcublasLt.so.13", "libcublasLt.so.12"};
  return find("MOEVAR_CUBLASLT", std::move(names), [](void* library) {
    auto* const ask = function_of<std::size_t()>(library, "cublasLtGetVersion");
    return ask != nullptr ? static_cast<int>(ask()) : -1;
  });
}

}  // namespace moevar
