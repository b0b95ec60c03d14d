#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/identity.hpp"
#include "conditions/plant.hpp"
#include "fleet/gpu_family.hpp"
#include "fleet/gpu_physics.hpp"
#include "fleet/transient.hpp"
#include "system/mpi.hpp"

namespace moevar::conditions {

/// Modelled GPUs in virtual time. Pairs of neighbours heat each other; a pair that two ranks share
/// is simulated by both, so that what is computed does not depend on the number of ranks.
class ModelPlant final : public Plant {
 public:
  /// `fleet`: all GPUs, in order; `mine`: this rank's. `comm` and `family` outlive the object. GPUs
  /// start idle, at the family's default limit.
  ModelPlant(const mpi::Communicator& comm, const fleet::GpuFamily& family,
             std::span<const fleet::GpuTraits> fleet, DeviceRange mine);

  void set_cap(std::optional<double> request_w) override;
  std::vector<timeline::CapState> caps() override;
  /// Burn::neighbours: every GPU idles beside one that burns steadily, as if each were measured
  /// alone; who sits downstream (E3) breathes what the neighbour, taken to draw what this GPU would
  /// itself, has heated. Throws EnvironmentError where a GPU gets so hot that it shuts down.
  void work(double seconds, Burn burn) override;
  void keep_burning(Burn burn) override { let_neighbours_burn(burn == Burn::neighbours); }
  /// Clocks are means since the read before: single ones beat with the regulator's cycle.
  std::vector<timeline::Reading> read() override;
  std::vector<timeline::Counters> count() override;
  void start_telemetry(double hz) override;
  std::vector<std::vector<timeline::Reading>> stop_telemetry() override;
  [[nodiscard]] double polling_s() const override { return 0.0; }

  /// Every GPU at once in its steady state under a dense GEMM and the present cap.
  void settle();
  /// The fleet runs dense GEMMs for that long, whoever heats the air.
  void run(double seconds);

  [[nodiscard]] double time_s() const noexcept { return transient_.time_s(); }
  /// Of this rank's devices, in their order; not collective. my_mean_clocks: since mark().
  [[nodiscard]] std::vector<timeline::Reading> my_readings() const;
  [[nodiscard]] std::vector<timeline::Counters> my_counters() const;
  [[nodiscard]] std::vector<double> my_clocks() const;
  void mark() { transient_.mark(); }
  [[nodiscard]] std::vector<double> my_mean_clocks() const;

  /// All that time changes, to come back to.
  struct State {
    fleet::Transient transient;
    bool neighbours_burn = false;
  };
  [[nodiscard]] State state() const { return {transient_, neighbours_burn_}; }
  void restore(const State& state);

 private:
  [[nodiscard]] std::size_t local(DeviceId device) const {
    return static_cast<std::size_t>(device - first_);
  }
  void let_neighbours_burn(bool burn);
  void advance(double seconds, const fleet::Activity& activity);
  void sample();

  const mpi::Communicator& comm_;
  const fleet::GpuFamily& family_;
  std::size_t devices_;
  DeviceRange mine_;
  DeviceId first_;  ///< of those simulated: `mine` and the other halves of its pairs
  std::vector<fleet::GpuTraits> gpus_;
  fleet::Transient transient_;
  std::optional<double> request_w_;
  bool neighbours_burn_ = false;
  double period_s_ = 0.0;  ///< of telemetry; 0: off
  double next_sample_s_ = 0.0;
  std::vector<std::vector<timeline::Reading>> series_;
};

}  // namespace moevar::conditions
