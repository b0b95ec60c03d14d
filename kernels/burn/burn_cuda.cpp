#include "burn/burn_cuda.hpp"

#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "base/error.hpp"
#include "burn/burn_kernels.hpp"
#include "burn/burst.hpp"
#include "system/cublas_lt.hpp"

namespace moevar::burn {

namespace {

using Clock = std::chrono::steady_clock;

/// Products that are queued together, between two events.
struct Burst {
  cuda::Event before{cuda::Event::Wait::sleep};
  cuda::Event after{cuda::Event::Wait::sleep};
  int products = 0;  ///< 0: nothing is queued
};

int current_gpu() {
  int ordinal = 0;
  MOEVAR_CUDA(cudaGetDevice(&ordinal));
  return ordinal;
}

int size_for_memory(int size) {
  if (size < 1) {
    throw InputError(fmt::format("burn: matrices of size {}; at least 1 would be right", size));
  }
  const std::size_t half = cuda::memory().free / 2;
  const std::size_t library = cublas_lt::Handle::kWorkspaceBytes;
  return size_that_fits(size, half > library ? half - library : 0);
}

}  // namespace

class Burner::Work {
 public:
  explicit Work(int most_size)
      : ordinal_(current_gpu()),
        size_(size_for_memory(most_size)),
        gemm_(library_, product_of(size_), kAlgorithms),
        a_(elements()),
        b_(elements()),
        c_(elements()) {
    fill_with_normals(1, a_.data(), a_.size(), stream_);
    fill_with_normals(2, b_.data(), b_.size(), stream_);
    product_seconds_ = 1e-6 * static_cast<double>(gemm_.tune(operands(), stream_));
  }

  ~Work() {
    if (thread_.joinable()) {
      end();
    }
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  [[nodiscard]] int size() const noexcept { return size_; }
  [[nodiscard]] bool burning() const noexcept { return thread_.joinable(); }

  void begin(double duty) {
    stopped_ = false;
    products_ = 0;
    failure_ = nullptr;
    thread_ = std::thread([this, duty] {
      try {
        burn(duty);
      } catch (...) {
        failure_ = std::current_exception();
      }
    });
  }

  /// Products done since begin().
  std::int64_t end() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    wake_.notify_all();
    thread_.join();
    return products_;
  }

  void rethrow() const {
    if (failure_ != nullptr) {
      std::rethrow_exception(failure_);
    }
  }

 private:
  static constexpr int kAlgorithms = 4;

  static cublas_lt::Product product_of(int size) {
    const auto n = static_cast<std::size_t>(size);
    return {.rows = n, .columns = n, .depth = n};
  }
  [[nodiscard]] std::size_t elements() const {
    return static_cast<std::size_t>(size_) * static_cast<std::size_t>(size_);
  }
  [[nodiscard]] cublas_lt::Operands operands() const {
    return {.a = a_.data(), .b = b_.data(), .out = c_.data()};
  }

  /// Runs on the thread. At full duty a burst is queued before the one before it is over, so that
  /// the GPU never waits for the host.
  void burn(double duty) {
    cuda::use(ordinal_);
    std::array<Burst, 2> bursts;
    auto next = Clock::now();
    for (std::size_t i = 0; !wait_until(next); ++i) {
      Burst& burst = bursts[i % bursts.size()];
      finish(burst);
      queue(burst, duty);
      if (duty < 1.0) {
        const double busy = finish(burst);
        next += std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(period_after(busy, duty)));
        next = std::max(next, Clock::now());
      }
    }
    for (Burst& burst : bursts) {
      finish(burst);
    }
  }

  void queue(Burst& burst, double duty) {
    burst.products = products_per_burst(product_seconds_, duty);
    burst.before.record(stream_);
    for (int i = 0; i < burst.products; ++i) {
      gemm_.run(operands(), stream_);
    }
    burst.after.record(stream_);
  }

  /// Waits for a burst, if it is under way, and returns how long it took, seconds.
  double finish(Burst& burst) {
    if (burst.products == 0) {
      return 0.0;
    }
    burst.after.synchronise();
    const double busy = 1e-6 * static_cast<double>(burst.after.us_since(burst.before));
    product_seconds_ = busy / burst.products;
    products_ += burst.products;
    burst.products = 0;
    return busy;
  }

  /// Whether it is to end.
  bool wait_until(Clock::time_point when) {
    std::unique_lock lock(mutex_);
    return wake_.wait_until(lock, when, [&] { return stopped_; });
  }

  int ordinal_;
  int size_;
  cuda::Stream stream_;
  cublas_lt::Handle library_;
  cublas_lt::Gemm gemm_;
  cuda::DeviceArray<BFloat16> a_, b_, c_;
  double product_seconds_ = 0.0;  ///< of the last burst
  std::int64_t products_ = 0;     ///< the thread's until it has ended
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false;
  std::thread thread_;
};

Burner::Burner(int size) : work_(std::make_unique<Work>(size)) {}
Burner::~Burner() = default;

int Burner::size() const noexcept { return work_->size(); }

void Burner::start(double duty) {
  if (!(duty > 0.0 && duty <= 1.0)) {
    throw InputError(fmt::format("burn: a duty of {}; above 0, at most 1 would be right", duty));
  }
  if (work_->burning()) {
    throw InputError("burn: this GPU burns already; stop() before start()");
  }
  work_->begin(duty);
}

double Burner::stop() {
  if (!work_->burning()) {
    return 0.0;
  }
  const auto products = static_cast<double>(work_->end());
  work_->rethrow();
  const double size = work_->size();
  return 2.0 * products * size * size * size;
}

double Burner::run(double seconds, double duty) {
  start(duty);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return stop();
}

}  // namespace moevar::burn
