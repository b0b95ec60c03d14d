#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace moevar {

/// What the process returns; fixed by the contract in README.md.
enum class ExitStatus : int {
  ok = 0,
  check_failed = 1,    ///< a check of a result failed
  bad_input = 2,       ///< input that cannot be used
  environment = 3,     ///< the machine cannot do what was asked
  interrupted = 4,     ///< stopped by a signal; what was recorded is kept
  restore_failed = 5,  ///< a power limit could not be put back
};

/// Every exception moevar throws. Caught once, in cli. `what()` is one line.
class Error : public std::runtime_error {
 public:
  Error(ExitStatus status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  [[nodiscard]] ExitStatus status() const noexcept { return status_; }

 private:
  ExitStatus status_;
};

/// Unusable input: says what is wrong, where, and what would be right.
class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(ExitStatus::bad_input, message) {}
};

/// This machine, or this launch, cannot do what was asked.
class EnvironmentError : public Error {
 public:
  explicit EnvironmentError(const std::string& message) : Error(ExitStatus::environment, message) {}
};

/// A result is not what it must be (a checksum, a comparison with a reference).
class CheckError : public Error {
 public:
  explicit CheckError(const std::string& message) : Error(ExitStatus::check_failed, message) {}
};

/// Where in the source a call stands. std::source_location is not known to all the compilers that
/// check this code.
struct SourceLocation {
  const char* file = "";
  int line = 0;
  /// As a default argument: the place of the call whose default it is.
  static constexpr SourceLocation current(const char* file = __builtin_FILE(),
                                          int line = __builtin_LINE()) noexcept {
    return {file, line};
  }
};

/// A call of a C library failed: the call, the library's own message, file and line, host.
class LibraryError : public EnvironmentError {
 public:
  LibraryError(std::string_view call, std::string_view library_message,
               SourceLocation where = SourceLocation::current());
};

}  // namespace moevar
