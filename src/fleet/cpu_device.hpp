#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/identity.hpp"
#include "expert_ffn/expert_ffn.hpp"
#include "fleet/expert_weights.hpp"
#include "fleet/slot_table.hpp"
#include "system/mpi.hpp"

namespace moevar::fleet {

/// One CPU core as a device: holds its slots' expert weights and runs them.
class CpuDevice {
 public:
  using Slots = SlotTable<ExpertWeights>;
  using Slot = Slots::Slot;

  /// Empty slots, [layers][slots].
  CpuDevice(const expert_ffn::Shape& shape, std::uint64_t seed, int layers, int slots);

  [[nodiscard]] int layers() const noexcept { return slots_.layers(); }
  [[nodiscard]] int slots() const noexcept { return slots_.slots(); }
  [[nodiscard]] const expert_ffn::Shape& shape() const noexcept { return shape_; }

  /// Makes the weights of a layer's experts, one a slot, in place of what was there.
  void load(int layer, std::span<const std::int32_t> experts);

  [[nodiscard]] const Slot& at(int layer, int slot) const { return slots_.at(layer, slot); }
  /// The slot of a layer that holds `expert`; nullptr where none does.
  [[nodiscard]] const Slot* find(int layer, std::int32_t expert) const {
    return slots_.find(layer, expert);
  }

  /// Storage that no slot uses, for an expert that is on its way here.
  [[nodiscard]] std::shared_ptr<ExpertWeights> take_spare();
  /// Puts a layer's experts in place all at once; storage that falls free becomes spare.
  void place(int layer, std::vector<Slot> experts) { slots_.place(layer, std::move(experts)); }

  /// What the checksum of an expert's weights must be.
  [[nodiscard]] std::uint64_t expected_checksum(int layer, std::int32_t expert) const;

  /// Runs a layer's experts: `rows_per_slot` rows for every slot, one after the other in `x`, give
  /// as many in `y`, both [rows, hidden]. Allocates nothing.
  void run_experts(int layer, std::span<const std::int64_t> rows_per_slot, std::span<const float> x,
                   std::span<float> y);

 private:
  expert_ffn::Shape shape_;
  std::uint64_t seed_;
  Slots slots_;
  std::vector<expert_ffn::Group> groups_;
  expert_ffn::Workspace workspace_;
};

/// Binds this rank to a core of its node and says who the fleet of CPU cores is: the first
/// `devices` ranks, one device each. A core that several ranks share gives "cpu-<host>-<core>",
/// "cpu-<host>-<core>.1", ... Collective; the same on every rank.
std::vector<DeviceIdentity> bind_cpu_fleet(const mpi::Communicator& comm, int devices);

}  // namespace moevar::fleet
