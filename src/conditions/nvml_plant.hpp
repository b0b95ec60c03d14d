#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "conditions/cap_guard.hpp"
#include "conditions/plant.hpp"
#include "conditions/poller.hpp"
#include "conditions/share.hpp"
#include "study/study.hpp"
#include "system/mpi.hpp"

namespace moevar::conditions {

/// Throws InputError where that GPU does not accept such a limit, EnvironmentError where it does
/// not tell. Writes nothing.
void require_in_range(const std::string& uuid, double request_w);

/// Real GPUs through NVML, or a stand-in's through MOEVAR_NVML. Every rank has one GPU; the first
/// ranks' are the fleet, those of the others are at most its neighbours. The first rank of each
/// node writes its node's limits and polls its sensors.
class NvmlPlant : public Plant {
 public:
  /// Collective over `comm`, which outlives this. `my_gpu_uuid`: this rank's GPU. `burn` runs a
  /// dense GEMM on it for so many seconds. With `mode` set, the guard of the power limits begins
  /// here and ends with the object. Throws, on every rank: EnvironmentError without NVML or such a
  /// GPU, where two ranks of a node have the same, or where the limits cannot be set (CapGuard).
  NvmlPlant(const mpi::Communicator& comm, int devices, std::string my_gpu_uuid,
            study::CapMode mode, const std::string& study_name,
            std::function<void(double seconds)> burn, GuardOptions options = {});
  ~NvmlPlant() override;
  NvmlPlant(const NvmlPlant&) = delete;
  NvmlPlant& operator=(const NvmlPlant&) = delete;

  /// set: writes it; verify: throws EnvironmentError where another is enforced; observe: takes note
  /// of it alone.
  void set_cap(std::optional<double> request_w) override;
  std::vector<timeline::CapState> caps() override;
  /// Burn::neighbours needs a rank beyond the fleet's on every node of the fleet.
  void work(double seconds, Burn burn) override;
  void keep_burning(Burn burn) override;
  std::vector<timeline::Reading> read() override;
  std::vector<timeline::Counters> count() override;
  void start_telemetry(double hz) override;
  std::vector<std::vector<timeline::Reading>> stop_telemetry() override;

  /// Reads the limits again: a line for each GPU of the fleet whose enforced limit changed by
  /// itself since it was set or last watched. Empty unless `mode` is set. Collective.
  std::vector<std::string> watch() override;

  /// What this node's telemetry thread took in the last span between start and stop; both 0 on
  /// ranks that have none.
  struct Cost {
    double cpu_s = 0.0;
    double wall_s = 0.0;
  };
  [[nodiscard]] Cost telemetry_cost() const noexcept { return cost_; }
  [[nodiscard]] double polling_s() const override { return cost_.cpu_s; }

 private:
  [[nodiscard]] bool in_fleet() const noexcept { return comm_->rank() < devices_; }
  [[nodiscard]] bool is_neighbour() const;
  [[nodiscard]] bool burns(Burn burn) const;
  void require_neighbours() const;
  void refuse_shared_gpus() const;
  /// What `of_mine` says of this rank's device, for the whole fleet.
  template <class OfMine>
  [[nodiscard]] auto of_fleet(const OfMine& of_mine) const {
    std::vector<decltype(of_mine())> mine;
    if (in_fleet()) {
      mine.push_back(of_mine());
    }
    return share(*comm_, mine, static_cast<std::size_t>(devices_));
  }

  const mpi::Communicator* comm_;
  mpi::Communicator node_;
  int devices_;
  study::CapMode mode_;
  std::function<void(double)> burn_;
  std::optional<nvml::Device> device_;
  std::vector<std::string> uuids_;    ///< of all ranks
  std::vector<std::int64_t> leader_;  ///< of all ranks: the first rank of its node
  std::vector<int> local_fleet_;      ///< ranks of this node that are in the fleet
  std::optional<double> requested_w_;
  std::optional<CapGuard> guard_;  ///< a node's leader has it, with `mode` set
  std::jthread burning_;           ///< on a neighbour, from keep_burning() on
  std::optional<Poller> poller_;   ///< a node's leader has it, while telemetry runs
  Cost cost_;
};

}  // namespace moevar::conditions
