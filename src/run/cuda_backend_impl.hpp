#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "conditions/keeper.hpp"
#include "device_clock/device_clock_cuda.hpp"
#include "exchange/device_exchange.hpp"
#include "exchange/device_migration.hpp"
#include "fleet/cuda_device.hpp"
#include "fleet/gpu_binding.hpp"
#include "run/backend.hpp"
#include "run/cuda_layer.hpp"
#include "run/layer_schedule.hpp"
#include "run/observed.hpp"
#include "run/profiling.hpp"
#include "run/sensors.hpp"
#include "study/plan.hpp"
#include "system/cuda_l2.hpp"
#include "system/green_context.hpp"
#include "system/mpi.hpp"
#include "system/nccl.hpp"
#include "timeline/clock.hpp"
#include "timeline/stamps.hpp"

namespace moevar::run {

/// Multiprocessors of a whole GPU that are left to what travels beside experts: NCCL's blocks, and
/// copies within the GPU. A power of two, for NCCL rounds the channels of its sends and receives up
/// to one (2.28); DeepSeek-V3 leaves 20 (arXiv 2412.19437, section 3.2.2).
inline constexpr int kExchangeSms = 16;

/// See cuda_backend.hpp. Part of builds with CUDA.
class CudaBackend final : public Backend {
 public:
  CudaBackend(const mpi::Communicator& comm, const study::Study& study, study::ModelShape model,
              const study::PhaseSpec& phase, int tokens_per_device);

  [[nodiscard]] const std::vector<DeviceIdentity>& fleet() const override { return fleet_; }
  [[nodiscard]] DeviceRange mine() const override;
  [[nodiscard]] std::string timer() const override { return "cuda_globaltimer"; }
  [[nodiscard]] std::string sync() const override;

  void enter(const study::Condition& condition) override;
  timeline::FleetState settle() override;
  /// As profiling.hpp has it, with CUDA's events, in the batches of a step; together, all devices
  /// also where few are asked for. Before move_to() it makes weights of its own for that.
  placement::SpeedModels profile(int slots, double max_tokens,
                                 std::span<const DeviceId> devices) override;
  Migration move_to(const placement::Placement& placement) override;
  PhaseResult run(const PhaseSteps& steps) override;

 private:
  /// A device of this rank: its experts, and the layers around them.
  struct Lane {
    std::unique_ptr<fleet::CudaDevice> device;
    std::unique_ptr<cuda::Stream> exchange_stream;  ///< with several batches, for what travels
    std::unique_ptr<CudaLayer> layer;
  };
  /// The GPU that this rank drives, as errors name it.
  [[nodiscard]] std::string my_gpu() const;
  /// What CUDA throws in `work` gets the GPU's name.
  void naming_gpu(const std::function<void()>& work) const;
  /// The same for work that is not collective: what one rank throws, all do.
  void on_gpus(const std::function<void()>& work) const;
  [[nodiscard]] bool active() const noexcept { return devices_.size() > 0; }
  [[nodiscard]] std::size_t lanes() const noexcept {
    return static_cast<std::size_t>(lanes_per_rank_);
  }
  [[nodiscard]] expert_ffn::Shape expert_shape() const noexcept;
  [[nodiscard]] DeviceId device_of(std::size_t lane) const noexcept;
  /// On all of the GPU, or on the part of it that the lane is.
  [[nodiscard]] const cuda::Stream& stream_of(std::size_t lane) const;
  [[nodiscard]] int sm_limit_of(std::size_t lane) const;

  void use_sensors();
  void make_exchange(int slots);
  [[nodiscard]] cuda::Stream make_exchange_stream(std::size_t lane) const;
  [[nodiscard]] std::unique_ptr<fleet::CudaDevice> make_device(std::size_t lane, int layers,
                                                               int slots, std::size_t rows) const;
  /// One whose weights are only there to be timed.
  [[nodiscard]] std::unique_ptr<fleet::CudaDevice> make_profiled(std::size_t lane, int slots,
                                                                 std::size_t rows) const;
  /// Of a device's slots and a batch of its tokens, where loads are even.
  [[nodiscard]] std::size_t rows_per_slot(int slots) const noexcept;
  void load(const placement::Placement& placement);
  void check_memory(int layers, int slots) const;
  void check_steps(const PhaseSteps& steps) const;
  /// Whether what came is what the seed makes of that expert; else says so where nothing was said.
  void check_arrived(int layer, std::size_t lane, const fleet::CudaDevice::Slots::Slot& arrived,
                     std::string& failure);
  /// A layer's experts of one device, all at once.
  void put_in_place(int layer, std::size_t lane,
                    std::vector<fleet::CudaDevice::Slots::Slot> incoming,
                    const placement::Placement& to);
  void move_layer(int layer, std::span<const placement::Move> moves, const placement::Placement& to,
                  std::string& failure);
  ProfileTimes time_experts(std::span<fleet::CudaDevice* const> devices, const ProfilePlan& plan);

  void take_routes(const PhaseSteps& steps, std::int64_t step);
  void run_layer(int layer);
  void wait_for_lanes();
  void run_step(const PhaseSteps& steps, std::int64_t step, std::span<std::uint64_t* const> words);
  double verify(const PhaseSteps& steps);
  void check_reference(double& error, int phase) const;
  PhaseClock measure(const PhaseSteps& steps, PhaseResult& result);

  const mpi::Communicator& comm_;
  const study::Study& study_;
  study::ModelShape model_;
  int tokens_per_device_;
  int lanes_per_rank_;
  std::vector<TokenRange> batches_;  ///< of a device's tokens in a step
  std::vector<LayerOperation> schedule_;
  fleet::GpuFleet gpus_;
  std::vector<DeviceIdentity> fleet_;
  mpi::Communicator devices_;           ///< the ranks that work; empty on the others
  std::optional<cuda::Stream> stream_;  ///< of a rank with one lane
  std::vector<cuda::Partition> parts_;  ///< of one with several
  std::optional<device_clock::Calibrator> clock_;
  timeline::ClockReading clock_reading_;  ///< the worst of the fleet
  std::optional<cuda::L2Flush> flush_;
  Sensors sensors_;
  std::optional<conditions::Keeper> keeper_;

  std::optional<placement::Placement> placement_;  ///< where the experts are
  std::optional<nccl::Communicator> nccl_;
  BatchExchanges exchanges_;
  std::unique_ptr<exchange::DeviceMigration> migration_;
  std::vector<Lane> lanes_;
  Nanoseconds transfer_ns_ = 0;  ///< of the migration under way
};

}  // namespace moevar::run
