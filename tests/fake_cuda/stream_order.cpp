#include "stream_order.hpp"

#include <algorithm>
#include <utility>

namespace moevar::fake {

std::size_t StreamOrder::number_of(Stream stream) {
  const auto [found, is_new] = numbers_.try_emplace(stream, next_number_);
  next_number_ += is_new ? 1 : 0;
  return found->second;
}

StreamOrder::Clock& StreamOrder::clock_of(std::size_t number) {
  if (clocks_.size() <= number) {
    clocks_.resize(number + 1);
  }
  if (clocks_[number].size() <= number) {
    clocks_[number].resize(number + 1);
  }
  return clocks_[number];
}

void StreamOrder::join(Clock& into, const Clock& other) {
  into.resize(std::max(into.size(), other.size()));
  std::ranges::transform(other, into, into.begin(), std::ranges::max);
}

bool StreamOrder::before(const Use& use, const Clock& clock) {
  return use.tick == 0 || (use.stream < clock.size() && use.tick <= clock[use.stream]);
}

std::string StreamOrder::race(const Use& earlier, const std::string& how, const Use& now) {
  return now.what + " on stream " + std::to_string(now.stream) + " and " + earlier.what +
         " on stream " + std::to_string(earlier.stream) + ", " + how +
         " the same memory: nothing orders them";
}

void StreamOrder::split(std::uintptr_t at) {
  auto after = pieces_.upper_bound(at);
  if (after == pieces_.begin()) {
    return;
  }
  auto& [begin, piece] = *std::prev(after);
  if (begin < at && at < piece.end) {
    pieces_.emplace(at, piece);
    piece.end = at;
  }
}

std::pair<StreamOrder::Pieces::iterator, StreamOrder::Pieces::iterator> StreamOrder::cover(
    Bytes memory) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.begin);
  const auto end = begin + memory.size;
  split(begin);
  split(end);
  auto next = begin;
  for (auto at = pieces_.lower_bound(begin); next < end; ++at) {
    const auto until = at == pieces_.end() ? end : std::min(at->first, end);
    if (next < until) {
      at = pieces_.emplace(next, Piece{.end = until, .write = {}, .reads = {}}).first;
    }
    next = at->second.end;
  }
  return {pieces_.lower_bound(begin), pieces_.lower_bound(end)};
}

std::string StreamOrder::read(Bytes memory, const Use& now, const Clock& clock) {
  const auto [begin, end] = cover(memory);
  for (auto at = begin; at != end; ++at) {
    if (!before(at->second.write, clock)) {
      return race(at->second.write, "which writes", now);
    }
    at->second.reads[now.stream] = now;
  }
  return "";
}

std::string StreamOrder::write(Bytes memory, const Use& now, const Clock& clock) {
  const auto [begin, end] = cover(memory);
  for (auto at = begin; at != end; ++at) {
    if (!before(at->second.write, clock)) {
      return race(at->second.write, "which writes too", now);
    }
    for (const auto& [stream, use] : at->second.reads) {
      if (!before(use, clock)) {
        return race(use, "which reads", now);
      }
    }
  }
  pieces_.erase(begin, end);
  const auto first = reinterpret_cast<std::uintptr_t>(memory.begin);
  pieces_.emplace(first, Piece{.end = first + memory.size, .write = now, .reads = {}});
  return "";
}

std::string StreamOrder::use(Stream stream, const std::string& what, std::span<const Bytes> reads,
                             std::span<const Bytes> writes) {
  const std::lock_guard lock(mutex_);
  const std::size_t number = number_of(stream);
  const Clock host = clock_of(0);
  Clock& clock = clock_of(number);
  join(clock, host);
  const Use now{number, ++clock[number], what};
  std::string found;
  for (const auto& memory : reads) {
    found = found.empty() && memory.size > 0 ? read(memory, now, clock) : found;
  }
  for (const auto& memory : writes) {
    found = found.empty() && memory.size > 0 ? write(memory, now, clock) : found;
  }
  return found;
}

void StreamOrder::record(Event event, Stream stream) {
  const std::lock_guard lock(mutex_);
  const Clock host = clock_of(0);
  Clock& clock = clock_of(number_of(stream));
  join(clock, host);
  events_[event] = clock;
}

void StreamOrder::wait(Stream stream, Event event) {
  const std::lock_guard lock(mutex_);
  if (const auto found = events_.find(event); found != events_.end()) {
    join(clock_of(number_of(stream)), found->second);
  }
}

void StreamOrder::synchronise_stream(Stream stream) {
  const std::lock_guard lock(mutex_);
  const Clock done = clock_of(number_of(stream));
  join(clock_of(0), done);
}

void StreamOrder::synchronise_event(Event event) {
  const std::lock_guard lock(mutex_);
  if (const auto found = events_.find(event); found != events_.end()) {
    join(clock_of(0), found->second);
  }
}

void StreamOrder::synchronise_all() {
  const std::lock_guard lock(mutex_);
  Clock all;
  for (const auto& clock : clocks_) {
    join(all, clock);
  }
  join(clock_of(0), all);
}

void StreamOrder::forget(Bytes memory) {
  const std::lock_guard lock(mutex_);
  if (memory.size > 0) {
    const auto [begin, end] = cover(memory);
    pieces_.erase(begin, end);
  }
}

void StreamOrder::forget_stream(Stream stream) {
  const std::lock_guard lock(mutex_);
  numbers_.erase(stream);
}

void StreamOrder::forget_event(Event event) {
  const std::lock_guard lock(mutex_);
  events_.erase(event);
}

}  // namespace moevar::fake
