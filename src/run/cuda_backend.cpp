#include "run/cuda_backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "burn/burn_cuda.hpp"
#include "fleet/device_weights.hpp"
#include "run/cuda_backend_impl.hpp"
#include "run/cuda_fleet.hpp"

namespace moevar::run {

namespace {

constexpr int kTile = 16;                    // rows: the smallest step of the kernels' tiles
constexpr std::size_t kCachesOfWeights = 4;  // L2 caches that a profile's weights fill

std::size_t size_of(int value) { return static_cast<std::size_t>(value); }

expert_ffn::Precision precision_of(const study::Study& study) {
  return study.fleet.precision == study::Precision::fp8 ? expert_ffn::Precision::fp8
                                                        : expert_ffn::Precision::bf16;
}

fleet::GpuFleet bind(const mpi::Communicator& comm, const study::Study& study, int devices) {
  std::int64_t ranks = 0;
  mpi::on_root(comm, [&] { ranks = ranks_of_devices(devices, study.fleet.lanes(), comm.size()); });
  comm.broadcast(std::span(&ranks, 1));
  return fleet::bind_gpu_fleet(comm, static_cast<int>(ranks),
                               {.gpus = study.fleet.gpus, .share_gpu = study.fleet.share_gpu});
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const mpi::Communicator& comm, const study::Study& study,
                                           const study::ModelShape& model,
                                           const study::PhaseSpec& phase, int tokens_per_device) {
  return std::make_unique<CudaBackend>(comm, study, model, phase, tokens_per_device);
}

CudaBackend::CudaBackend(const mpi::Communicator& comm, const study::Study& study,
                         study::ModelShape model, const study::PhaseSpec& phase,
                         int tokens_per_device)
    : comm_(comm),
      study_(study),
      model_(std::move(model)),
      tokens_per_device_(tokens_per_device),
      lanes_per_rank_(study.fleet.lanes()),
      batches_(batches_of(size_of(tokens_per_device),
                          study.fleet.overlap == study::Overlap::two_batch ? 2 : 1)),
      schedule_(layer_schedule(batches_.size())),
      gpus_(bind(comm, study, phase.devices)),
      fleet_(devices_of_gpus(gpus_.devices, study.fleet.emulated_sms)),
      devices_(comm.split(size_of(comm.rank()) < gpus_.devices.size() ? 0 : -1)) {
  on_gpus([&] {
    const auto& mine = gpus_.ranks[size_of(comm_.rank())];
    cuda::use(mine.gpu.ordinal);
    if (!active()) {
      return;
    }
    if (study_.fleet.emulated_sms.empty()) {
      stream_.emplace();
    } else {
      parts_ = cuda::split(study_.fleet.emulated_sms);
    }
    clock_.emplace(stream_of(0));
    clock_reading_ = {device_clock::stamp_cost_ns(stream_of(0)), clock_->step_ns()};
    if (study_.phases.l2 == study::L2::cold) {
      flush_.emplace();
    }
    check_memory(model_.layers, phase.slots_per_device);
  });
  clock_reading_ = worst_of(comm_, active(), clock_reading_);
  use_sensors();
}

void CudaBackend::use_sensors() {
  const bool alone = lanes_per_rank_ == 1 && std::ranges::all_of(gpus_.ranks, [](const auto& rank) {
                       return rank.sharers == 1;
                     });
  const auto& mine = gpus_.ranks[size_of(comm_.rank())];
  auto burner = std::make_shared<std::optional<burn::Burner>>();
  sensors_ = gpu_sensors(comm_, study_, static_cast<int>(fleet_.size()), mine.gpu.uuid, alone,
                         [burner, ordinal = mine.gpu.ordinal](double seconds) {
                           cuda::use(ordinal);  // may be another thread than ours
                           if (!*burner) {
                             burner->emplace();  // when it is first needed, for it takes memory
                           }
                           (void)(*burner)->run(seconds);
                         });
  if (sensors_.plant) {
    keeper_.emplace(*sensors_.plant, sensors_.caps, sensors_.source, sensors_.heat);
  }
}

std::string CudaBackend::my_gpu() const {
  const auto& gpu = gpus_.ranks[size_of(comm_.rank())].gpu;
  return fmt::format("GPU {} ({}, CUDA ordinal {}) of rank {}", gpu.uuid, gpu.name, gpu.ordinal,
                     comm_.rank());
}

void CudaBackend::naming_gpu(const std::function<void()>& work) const {
  try {
    work();
  } catch (const cuda::CudaError& error) {
    throw EnvironmentError(fmt::format("{}: {}", my_gpu(), error.what()));
  }
}

void CudaBackend::on_gpus(const std::function<void()>& work) const {
  mpi::on_all(comm_, [&] { naming_gpu(work); });
}

DeviceRange CudaBackend::mine() const {
  const auto devices = static_cast<DeviceId>(fleet_.size());
  const DeviceId begin = std::min<DeviceId>(comm_.rank() * lanes_per_rank_, devices);
  return {begin, std::min<DeviceId>(begin + lanes_per_rank_, devices)};
}

std::string CudaBackend::sync() const {
  return "each GPU's clock is set against its host's before and after a phase, ranks of a node "
         "share that (checked), nodes by an HCA3-like tree; a barrier starts a step, the last exit "
         "a layer";
}

expert_ffn::Shape CudaBackend::expert_shape() const noexcept {
  return {size_of(model_.hidden), size_of(model_.intermediate)};
}

DeviceId CudaBackend::device_of(std::size_t lane) const noexcept {
  return devices_.rank() * lanes_per_rank_ + static_cast<DeviceId>(lane);
}

const cuda::Stream& CudaBackend::stream_of(std::size_t lane) const {
  return parts_.empty() ? *stream_ : parts_[lane].stream;
}

int CudaBackend::sm_limit_of(std::size_t lane) const {
  if (!parts_.empty()) {
    return parts_[lane].sms;
  }
  // experts' blocks that found others on their multiprocessors would begin when those are over
  return batches_.size() > 1 ? std::max(cuda::sm_count() - kExchangeSms, 1) : 0;
}

void CudaBackend::check_memory(int layers, int slots) const {
  const auto& mine = gpus_.ranks[size_of(comm_.rank())];
  // one more layer than there is: arriving experts lie beside those that they replace
  const std::size_t needed = expert_ffn::slot_bytes(expert_shape(), precision_of(study_)) *
                             size_of(layers + 1) * size_of(slots) * lanes();
  const std::size_t free = cuda::memory().free / size_of(mine.sharers);
  if (needed > free) {
    throw EnvironmentError(fmt::format(
        "{}: {} layers of {} experts of {} × {} need {} MiB on each of its {} devices, {} MiB are "
        "free{}; fewer layers (model.layers), smaller experts or more GPUs are needed",
        my_gpu(), layers, slots, model_.hidden, model_.intermediate, (needed / lanes()) >> 20U,
        lanes(), free >> 20U,
        mine.sharers > 1 ? fmt::format(" for each of the {} ranks that share it", mine.sharers)
                         : ""));
  }
}

void CudaBackend::enter(const study::Condition& condition) {
  if (keeper_) {
    keeper_->enter(condition);
  } else if (condition.power_cap_w || condition.heat != study::Heat::soaked) {
    throw EnvironmentError(fmt::format(
        "power caps and heat need NVML and a GPU of its own for every rank ({}); leave "
        "conditions.power_cap_w and conditions.heat out",
        study_.fleet.lanes() > 1 ? "fleet.emulated_sms is set" : "shared, or without NVML"));
  }
}

timeline::FleetState CudaBackend::settle() {
  return keeper_ ? keeper_->settle() : unobserved(fleet_.size());
}

ProfileTimes CudaBackend::time_experts(std::span<fleet::CudaDevice* const> devices,
                                       const ProfilePlan& plan) {
  const std::size_t hidden = expert_shape().hidden;
  const auto most_rows = static_cast<std::size_t>(std::llround(plan.grid.back()));
  std::vector<cuda::DeviceArray<BFloat16>> x;
  std::vector<cuda::DeviceArray<BFloat16>> y;
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    x.emplace_back(most_rows * hidden);
    y.emplace_back(most_rows * hidden);
    fleet::fill_activations_cuda(study_.seed, 0, most_rows, hidden, x.back().data(),
                                 stream_of(lane));
  }
  for (std::size_t lane = 0; lane < lanes(); ++lane) {
    stream_of(lane).synchronise();  // nothing is under way beside what is timed
  }
  const int slots = devices.front()->slots().slots();
  // in batches one after the other, as a step runs them
  std::vector rows(batches_.size(), std::vector<std::int64_t>(size_of(slots)));
  std::vector<cuda::Event> starts(lanes());
  std::vector<cuda::Event> ends(lanes());
  int layer = 0;
  const auto run = [&](std::span<const std::size_t> which, std::size_t point) {
    const auto all = std::llround(plan.grid[point]) / slots;
    const auto count = static_cast<std::int64_t>(rows.size());
    for (std::int64_t batch = 0; batch < count; ++batch) {
      std::ranges::fill(rows[static_cast<std::size_t>(batch)],
                        all / count + (batch < all % count ? 1 : 0));
    }
    for (const std::size_t lane : which) {
      starts[lane].record(stream_of(lane));
      for (const auto& batch : rows) {
        devices[lane]->run_experts(layer, batch, x[lane].data(), y[lane].data());
      }
      ends[lane].record(stream_of(lane));
    }
    std::vector<double> times_us;
    for (const std::size_t lane : which) {
      ends[lane].synchronise();
      times_us.push_back(static_cast<double>(ends[lane].us_since(starts[lane])));
    }
    layer = (layer + 1) % devices.front()->slots().layers();  // other weights each time
    return times_us;
  };
  return time_profile(devices_, plan, device_of(0), lanes(), fleet_.size(), run);
}

std::unique_ptr<fleet::CudaDevice> CudaBackend::make_profiled(std::size_t lane, int slots,
                                                              std::size_t rows) const {
  // enough layers that weights come from memory rather than from the L2 cache, as in a step
  const std::size_t layer_bytes =
      expert_ffn::slot_bytes(expert_shape(), precision_of(study_)) * size_of(slots);
  const int layers =
      std::clamp(static_cast<int>(kCachesOfWeights * cuda::l2_bytes() / layer_bytes) + 1, 1,
                 std::max(model_.layers, 1));
  auto device = make_device(lane, layers, slots, rows);
  std::vector<std::int32_t> experts(size_of(slots));
  std::iota(experts.begin(), experts.end(), device_of(lane) * slots);
  for (int layer = 0; layer < layers; ++layer) {
    device->load(layer, experts);
  }
  device->tune(rows_per_slot(slots));
  return device;
}

placement::SpeedModels CudaBackend::profile(int slots, double max_tokens,
                                            std::span<const DeviceId> devices) {
  const ProfilePlan plan{placement::profile_grid(slots, kTile, max_tokens),
                         study_.phases.profile_devices,
                         {devices.begin(), devices.end()}};
  const auto most_rows = static_cast<std::size_t>(std::llround(plan.grid.back()));
  std::vector<std::unique_ptr<fleet::CudaDevice>> own;
  std::vector<fleet::CudaDevice*> timed;
  on_gpus([&] {
    for (std::size_t lane = 0; active() && lane < lanes(); ++lane) {
      const bool loaded = !lanes_.empty() && placement_->slots_per_device == slots;
      if (loaded) {
        lanes_[lane].device->reserve(most_rows);
      } else {
        own.push_back(make_profiled(lane, slots, most_rows));
      }
      timed.push_back(loaded ? lanes_[lane].device.get() : own.back().get());
    }
  });
  ProfileTimes times;
  if (active()) {
    naming_gpu([&] { times = time_experts(timed, plan); });
  }
  return models_of(comm_, plan, times, fleet_.size());
}

}  // namespace moevar::run
