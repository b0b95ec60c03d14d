#include "system/patience.hpp"

#include <thread>

#include <fmt/format.h>

#include "base/error.hpp"
#include "system/affinity.hpp"
#include "system/whereabouts.hpp"

namespace moevar {

namespace {

// What takes less is not worth the sleep, from which a thread comes back some 50 us late.
constexpr std::chrono::milliseconds kSpin{1};
constexpr std::chrono::microseconds kNap{50};

}  // namespace

std::string describe_process(int rank, const std::string& gpu) {
  return fmt::format("rank {} on {}{}{}", rank, affinity::host_name(), gpu.empty() ? "" : ", ",
                     gpu);
}

void wait_until(const char* what, const Patience& patience, const std::function<bool()>& done,
                const char* advice) {
  const whereabouts::InCall here(what);
  const auto start = std::chrono::steady_clock::now();
  while (!done()) {
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited > patience.limit) {
      throw EnvironmentError(fmt::format("{}: {} was not done after {:.3g} s: {}", patience.who,
                                         what, patience.limit.count(), advice));
    }
    if (waited < kSpin) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

}  // namespace moevar
