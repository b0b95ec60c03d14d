#pragma once

#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "system/cuda.hpp"
#include "system/cuda_l2.hpp"
#include "system/gpu.hpp"

/// Device time of work on a GPU, for Google Benchmark's manual time.
namespace moevar::gpu {

/// Whether there is no GPU, and the benchmark skipped for it.
inline bool skipped(benchmark::State& state) {
  const std::string why = why_none_visible();
  if (!why.empty()) {
    state.SkipWithError(why.c_str());
  }
  return !why.empty();
}

/// Times what is queued on its stream, by CUDA events.
class Timer {
 public:
  /// `cold`: the L2 is flushed before each repetition, outside what is timed. Else repetitions
  /// follow each other in one graph.
  explicit Timer(bool cold, std::size_t repetitions = 10)
      : cold_(cold), before_(repetitions), after_(repetitions) {}

  [[nodiscard]] const cuda::Stream& stream() const noexcept { return stream_; }

  /// Mean seconds of one `work()`, which queues on stream() and is done once beforehand.
  template <class Work>
  double seconds(const Work& work) {
    work();
    double us = 0.0;
    if (cold_) {
      for (std::size_t i = 0; i < before_.size(); ++i) {
        flush_(stream_);
        before_[i].record(stream_);
        work();
        after_[i].record(stream_);
      }
      stream_.synchronise();
      for (std::size_t i = 0; i < before_.size(); ++i) {
        us += static_cast<double>(after_[i].us_since(before_[i]));
      }
    } else {
      const auto all = cuda::Graph::of(stream_, [&] {
        for (std::size_t i = 0; i < before_.size(); ++i) {
          work();
        }
      });
      all.launch(stream_);  // the first launch also sends the graph to the GPU
      before_[0].record(stream_);
      all.launch(stream_);
      after_[0].record(stream_);
      stream_.synchronise();
      us = static_cast<double>(after_[0].us_since(before_[0]));
    }
    return 1e-6 * us / static_cast<double>(before_.size());
  }

 private:
  bool cold_;
  cuda::Stream stream_;
  cuda::L2Flush flush_;
  std::vector<cuda::Event> before_;
  std::vector<cuda::Event> after_;
};

}  // namespace moevar::gpu
