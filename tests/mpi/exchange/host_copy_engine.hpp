#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "exchange/copy_engine.hpp"

namespace moevar::exchange {

/// Streams as a GPU has them, on the host and as lazy as can be: what a stream was given is done
/// when somebody asks for it, or when another stream waits for it, and not before. Work that should
/// have been waited for is therefore still to be done.
class LazyStreams {
 public:
  using Work = std::function<void()>;

  /// The n-th stream: a name that nobody looks into.
  [[nodiscard]] const cuda::Stream& stream(std::size_t n) const {
    return *reinterpret_cast<const cuda::Stream*>(&names_.at(n));
  }
  void give(const cuda::Stream& stream, Work work) {
    auto& queue = queues_[&stream];
    queue.work.push_back(std::move(work));
    ++queue.given;
  }
  [[nodiscard]] std::size_t given(const cuda::Stream& stream) { return queues_[&stream].given; }

  /// Does the first `count` pieces of what the stream was ever given.
  void run(const cuda::Stream& stream, std::size_t count) {
    auto& queue = queues_[&stream];
    while (queue.done < count) {
      const Work work = std::move(queue.work.front());
      queue.work.pop_front();
      ++queue.done;
      work();
    }
  }
  void run(const cuda::Stream& stream) { run(stream, given(stream)); }

 private:
  struct Queue {
    std::deque<Work> work;
    std::size_t given = 0;
    std::size_t done = 0;
  };
  std::vector<char> names_ = std::vector<char>(16);
  std::map<const cuda::Stream*, Queue> queues_;
};

/// Copies on the host, in the order of such streams. Says no when first asked whether something is
/// over.
class HostCopyEngine final : public CopyEngine {
 public:
  explicit HostCopyEngine(LazyStreams& streams) : streams_(streams) {}

  std::shared_ptr<std::byte> host_memory(std::size_t bytes) override {
    auto memory = std::make_shared<std::vector<std::byte>>(bytes);
    return {memory, memory->data()};
  }
  void copy(void* to, const void* from, std::size_t bytes, const cuda::Stream& stream) override {
    copied_ += bytes;
    streams_.give(stream, [=] { std::memcpy(to, from, bytes); });
  }
  void make_points(std::size_t count) override { points_.assign(count, {}); }
  void mark(std::size_t point, const cuda::Stream& stream) override {
    points_.at(point) = {&stream, streams_.given(stream), false};
  }
  void hold(std::size_t point, const cuda::Stream& stream) override {
    const Point marked = points_.at(point);
    if (marked.stream != nullptr) {
      streams_.give(stream, [this, marked] { streams_.run(*marked.stream, marked.end); });
    }
  }
  bool reached(std::size_t point) override {
    Point& marked = points_.at(point);
    if (marked.asked) {
      streams_.run(*marked.stream, marked.end);
    }
    return std::exchange(marked.asked, true);
  }
  bool done(const cuda::Stream& stream) override {
    streams_.run(stream);
    return true;
  }
  /// Of all that was queued.
  [[nodiscard]] std::size_t copied_bytes() const noexcept { return copied_; }

 private:
  struct Point {
    const cuda::Stream* stream = nullptr;
    std::size_t end = 0;
    bool asked = false;
  };
  LazyStreams& streams_;
  std::vector<Point> points_;
  std::size_t copied_ = 0;
};

}  // namespace moevar::exchange
