#include "run/watchdog.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <random>
#include <span>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"
#include "system/affinity.hpp"
#include "system/datagram.hpp"

namespace moevar::run {

namespace {

using std::chrono::milliseconds;

Seconds clock_now() { return std::chrono::steady_clock::now().time_since_epoch(); }

std::uint64_t random_token() {
  std::random_device device;
  return (std::uint64_t{device()} << 32U) | device();
}

}  // namespace

class Watchdog::Impl {
 public:
  Impl(const mpi::Communicator& comm, Seconds limit,
       std::function<void(const std::string& line)> on_hang)
      : rank_(comm.rank()),
        asleep_(std::min(Seconds(1.0), 0.5 * limit)),
        period_(std::clamp(milliseconds(static_cast<int>(80.0 * limit.count())), milliseconds(50),
                           milliseconds(1000))),
        on_hang_(std::move(on_hang)) {
    // who speaks to whom: the token, rank 0's port and its addresses, as one text
    std::string text;
    mpi::on_root(comm, [&] {
      token_ = random_token();
      text = fmt::format("{} {} {}", token_, socket_.port(),
                         fmt::join(datagram::own_addresses(), " "));
    });
    comm.broadcast(text);
    auto hosts = comm.all_gather(affinity::host_name());
    std::istringstream words(text);
    std::uint16_t port = 0;
    words >> token_ >> port;
    for (std::string address; words >> address;) {
      // the loopback is rank 0 for its own host's ranks alone
      const bool loopback = address == "127.0.0.1";
      if (!loopback || hosts[static_cast<std::size_t>(rank_)] == hosts.front()) {
        root_.push_back(datagram::address_of(address, port));
      }
    }
    // where several watch one, they do not all speak at once
    const Seconds later(rank_ <= 1 ? 0.0 : std::min(0.1 * (rank_ - 1), 2.0));
    lookout_.emplace(std::move(hosts), limit + later, clock_now());
    thread_ = std::thread([this] { watch(); });
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ~Impl() {
    ending_ = true;
    socket_.send({}, datagram::address_of("127.0.0.1", socket_.port()));  // wakes the thread
    thread_.join();
  }

 private:
  [[nodiscard]] Beat beat() const { return Beat::of(whereabouts::now(), token_, rank_); }

  void watch() {
    auto last = clock_now();
    for (auto next = last; !ending_;) {
      const auto now = clock_now();
      if (now - last > Seconds(period_) + asleep_) {
        lookout_->forgive(now);
      }
      last = now;
      if (now >= next) {
        next = now + period_;
        speak(now);
        judge(now);
      }
      socket_.wait(period_);
      listen();
    }
  }

  void speak(Seconds now) {
    const auto mine = beat();
    if (rank_ == 0) {
      lookout_->hear(mine, now);
      return;
    }
    for (const auto& address : root_) {
      socket_.send(std::as_bytes(std::span(&mine, 1)), address);
    }
  }

  void listen() {
    Beat heard;
    const auto room = std::as_writable_bytes(std::span(&heard, 1));
    while (const auto packet = socket_.receive(room)) {
      if (packet->length != sizeof heard || heard.token != token_) {
        continue;
      }
      lookout_->hear(heard, clock_now());
      if (rank_ == 0) {
        const auto mine = beat();
        socket_.send(std::as_bytes(std::span(&mine, 1)), packet->from);
      } else if (root_.size() > 1) {
        root_ = {packet->from};  // the way that works
      }
    }
  }

  void judge(Seconds now) {
    if (said_) {
      return;
    }
    if (const auto line = rank_ == 0 ? lookout_->verdict(now) : lookout_->verdict_of(0, now)) {
      said_ = true;
      on_hang_(*line);
    }
  }

  int rank_;
  Seconds asleep_;  ///< the thread was due and did not run for this long: it was stopped
  milliseconds period_;
  std::function<void(const std::string&)> on_hang_;
  datagram::Socket socket_;
  std::uint64_t token_ = 0;
  std::vector<datagram::Address> root_;  ///< rank 0's, those that are still tried
  std::optional<Lookout> lookout_;
  bool said_ = false;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

Watchdog::Watchdog(const mpi::Communicator& comm, Seconds limit,
                   std::function<void(const std::string& line)> on_hang)
    : impl_(std::make_unique<Impl>(comm, limit, std::move(on_hang))) {}

Watchdog::~Watchdog() = default;

}  // namespace moevar::run
