#pragma once

#include <chrono>
#include <exception>
#include <future>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"

namespace moevar::conditions {

/// How long a call to the driver may take before it counts as hung.
inline constexpr std::chrono::milliseconds kCallLimit{10'000};

/// A driver did not answer in time. The call may still come to pass.
class Unanswered : public EnvironmentError {
 public:
  using EnvironmentError::EnvironmentError;
};

/// The result of `call`, made on a thread of its own. A call to a driver cannot be broken off:
/// where it takes longer than `limit`, Unanswered is thrown and the thread is left to it, so
/// `call` owns what it uses. A write that was left so may still come to pass, but not after the
/// process's end, which is when its lock on the GPU falls and others heal. Throws what `call`
/// throws.
template <class Call>
auto within(std::chrono::milliseconds limit, const std::string& what, Call call)
    -> decltype(call()) {
  std::packaged_task<decltype(call())()> task(call);
  auto result = task.get_future();
  try {
    std::thread(std::move(task)).detach();
  } catch (const std::system_error&) {
    return call();  // no thread to be had: better a call without limit than none
  }
  if (result.wait_for(limit) != std::future_status::ready) {
    throw Unanswered(fmt::format("{}: the driver did not answer within {:g} s", what,
                                 static_cast<double>(limit.count()) * 1e-3));
  }
  return result.get();
}

}  // namespace moevar::conditions
