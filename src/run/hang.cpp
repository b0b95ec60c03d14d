#include "run/hang.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace moevar::run {

namespace {

/// As much of a text as there is room for, ended by a zero.
template <std::size_t Size>
void put(std::array<char, Size>& room, std::string_view text) noexcept {
  text = text.substr(0, Size - 1);
  std::ranges::copy(text, room.begin());
}

template <std::size_t Size>
std::string text_in(const std::array<char, Size>& room) {
  const auto end = std::ranges::find(room, '\0');
  std::string text(room.begin(), end);
  // it came over the network
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace

Beat Beat::of(const whereabouts::Position& position, std::uint64_t token, int rank) noexcept {
  Beat beat;
  beat.token = token;
  beat.moves = position.moves;
  beat.rank = rank;
  beat.phase = position.phase;
  beat.step = position.step;
  beat.first_device = position.first_device;
  beat.devices = position.devices;
  put(beat.stage, position.stage);
  if (position.call != nullptr) {
    const std::string_view call = position.call;
    put(beat.call, call.substr(0, call.find('(')));
  }
  return beat;
}

Lookout::Lookout(std::vector<std::string> hosts, Seconds limit, Seconds start)
    : hosts_(std::move(hosts)), ranks_(hosts_.size()), limit_(limit) {
  forgive(start);
}

void Lookout::hear(const Beat& beat, Seconds now) {
  if (beat.rank < 0 || static_cast<std::size_t>(beat.rank) >= ranks_.size()) {
    return;
  }
  auto& seen = ranks_[static_cast<std::size_t>(beat.rank)];
  if (!seen.ever || beat.moves != seen.beat.moves) {
    seen.moved_at = now;
  }
  seen.beat = beat;
  seen.heard_at = now;
  seen.ever = true;
}

void Lookout::forgive(Seconds now) {
  for (auto& seen : ranks_) {
    seen.heard_at = now;
    seen.moved_at = now;
  }
}

std::optional<std::string> Lookout::verdict_of(int rank, Seconds now) const {
  const auto index = static_cast<std::size_t>(rank);
  const auto& seen = ranks_.at(index);
  if (!seen.ever || now - seen.heard_at <= limit_) {
    return std::nullopt;
  }
  return fmt::format("no sign of life for {:.0f} s of {}; the job ends", limit_.count(),
                     describe(index));
}

std::optional<std::string> Lookout::verdict(Seconds now) const {
  std::vector<std::size_t> silent;
  std::vector<std::size_t> working;
  std::vector<std::size_t> all;
  bool nobody_moves = true;
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    const auto& seen = ranks_[rank];
    all.push_back(rank);
    if (seen.ever && now - seen.heard_at > limit_) {
      silent.push_back(rank);
    }
    if (!seen.ever || !seen.beat.waits()) {
      working.push_back(rank);
    }
    nobody_moves = nobody_moves && now - seen.moved_at > limit_;
  }
  if (!silent.empty()) {
    return fmt::format("no sign of life for {:.0f} s of {}; the job ends", limit_.count(),
                       list(silent));
  }
  if (!nobody_moves || working.size() == ranks_.size()) {
    return std::nullopt;  // nobody waits for a rank that works, however long that takes
  }
  if (working.empty()) {
    return fmt::format(
        "no rank got anywhere for {:.0f} s, and all wait for each other: {}; the job "
        "ends",
        limit_.count(), list(all));
  }
  return fmt::format("{} did not arrive within {:.0f} s, {} wait{} for {}; the job ends",
                     list(working), limit_.count(), all.size() - working.size(),
                     all.size() - working.size() == 1 ? "s" : "",
                     working.size() == 1 ? "it" : "them");
}

// "rank 3 on node1 (device 3), last in phase 12, steps, step 5, MPI_Barrier"
std::string Lookout::describe(std::size_t rank) const {
  const auto& seen = ranks_[rank];
  auto text = fmt::format("rank {} on {}", rank, hosts_[rank]);
  if (!seen.ever) {
    return text + " (never heard of)";
  }
  const auto& beat = seen.beat;
  if (beat.devices == 1) {
    text += fmt::format(" (device {})", beat.first_device);
  } else if (beat.devices > 1) {
    text +=
        fmt::format(" (devices {}-{})", beat.first_device, beat.first_device + beat.devices - 1);
  }
  text += beat.phase < 0 ? ", last before the first phase"
                         : fmt::format(", last in phase {}", beat.phase);
  text += fmt::format(", {}", text_in(beat.stage));
  if (beat.step >= 0) {
    text += fmt::format(", step {}", beat.step);
  }
  if (beat.waits()) {
    text += fmt::format(", in {}", text_in(beat.call));
  }
  return text;
}

std::string Lookout::list(std::span<const std::size_t> ranks) const {
  constexpr std::size_t kNamed = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(ranks.size(), kNamed); ++i) {
    text += (i == 0 ? "" : "; ") + describe(ranks[i]);
  }
  if (ranks.size() > kNamed) {
    text += fmt::format("; and {} more", ranks.size() - kNamed);
  }
  return text;
}

}  // namespace moevar::run
