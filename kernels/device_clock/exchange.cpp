#include "device_clock/exchange.hpp"

#include <atomic>

namespace moevar::device_clock {

std::vector<Round> ask(std::uint32_t& question, std::span<std::uint64_t> answers,
                       const HostClock& now, Nanoseconds patience_ns) {
  std::vector<Round> rounds;
  rounds.reserve(answers.size());
  const Nanoseconds begin = now();
  for (std::uint64_t& word : answers) {
    const std::atomic_ref answer(word);
    Round round;
    round.asked = now();
    std::atomic_ref(question).store(static_cast<std::uint32_t>(rounds.size()) + 1,
                                    std::memory_order_seq_cst);
    std::uint64_t stamped = 0;
    do {
      stamped = answer.load(std::memory_order_acquire);
      round.answered = now();
    } while (stamped == 0 && round.answered - begin < patience_ns);
    if (stamped == 0) {
      break;
    }
    round.stamped = static_cast<Nanoseconds>(stamped);
    rounds.push_back(round);
  }
  return rounds;
}

}  // namespace moevar::device_clock
