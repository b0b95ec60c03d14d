#include "run/cpu_backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "placement/migration.hpp"
#include "run/dense_reference.hpp"
#include "run/slot_tokens.hpp"

namespace moevar::run {
namespace {

/// All ranks; backends keep a reference to it.
const mpi::Communicator& world() {
  static const auto all = mpi::Communicator::world();
  return all;
}

constexpr std::uint64_t kSeed = 3;
constexpr int kTokens = 12;  // of a device
const study::ModelShape kModel{"", 24, 20, 8, 3, 3};

/// Token t of a step goes to experts t + 2 step + layer + {0, 1, 4}, and every third token to
/// experts 0, 1 and 5, so that loads differ.
class TinyRouting final : public workload::Routing {
 public:
  [[nodiscard]] workload::RoutingShape shape() const override {
    return {kModel.layers, kModel.experts, kModel.top_k};
  }
  void sample(std::int64_t step, std::int64_t tokens,
              std::span<std::uint32_t> counts) const override {
    std::ranges::fill(counts, 0);
    for (int layer = 0; layer < kModel.layers; ++layer) {
      const auto ids = token_experts(step, layer, tokens);
      for (const auto expert : ids.flat()) {
        ++counts[static_cast<std::size_t>(layer) * 8 + static_cast<std::size_t>(expert)];
      }
    }
  }
  [[nodiscard]] Matrix<std::int32_t> token_experts(std::int64_t step, int layer,
                                                   std::int64_t tokens) const override {
    Matrix<std::int32_t> ids({static_cast<std::size_t>(tokens), 3});
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t base = t + 2 * step + layer;
      const std::array<std::int64_t, 3> even{base, base + 1, base + 4};
      const std::array<std::int64_t, 3> crowd{0, 1, 5};
      for (std::size_t k = 0; k < 3; ++k) {
        ids(t, k) = static_cast<std::int32_t>((t % 3 == 0 ? crowd : even)[k] % kModel.experts);
      }
    }
    return ids;
  }
};

/// Slot s of layer l holds expert order[(s + shift × l) mod experts].
placement::Placement placed(int devices, std::vector<std::int32_t> order, int shift = 1) {
  placement::Placement placement;
  const std::size_t slots = order.size();
  placement.devices = devices;
  placement.slots_per_device = static_cast<int>(slots) / devices;
  placement.expert_of_slot = Matrix<std::int32_t>({3, slots});
  placement.share_of_slot = Matrix<double>({3, slots}, 1.0);
  for (std::size_t layer = 0; layer < 3; ++layer) {
    for (std::size_t s = 0; s < slots; ++s) {
      placement.expert_of_slot(layer, s) =
          order[(s + static_cast<std::size_t>(shift) * layer) % slots];
    }
  }
  return placement;
}

std::vector<std::int32_t> in_order() {
  std::vector<std::int32_t> order(8);
  std::iota(order.begin(), order.end(), 0);
  return order;
}
std::vector<std::int32_t> backwards() {
  auto order = in_order();
  std::ranges::reverse(order);
  return order;
}

/// A phase of `steps` steps from step 2 on, with what it refers to.
struct Phase {
  Phase(placement::Placement where, int steps) : placement(std::move(where)) {
    loads = workload::Loads({static_cast<std::size_t>(steps), 3, 8});
    for (int i = 0; i < steps; ++i) {
      routing.sample(2 + i, tokens(), loads.row(i));
    }
  }
  [[nodiscard]] std::int64_t tokens() const { return std::int64_t{placement.devices} * kTokens; }
  [[nodiscard]] PhaseSteps run() const {
    return {0, 2, 1, tokens(), routing, loads, std::span(&placement, 1)};
  }

  placement::Placement placement;
  workload::Loads loads;
  TinyRouting routing;
};

/// Every output of every token of this rank in `step`, against the dense reference.
void expect_all_outputs_right(CpuBackend& backend, const Phase& phase, std::int64_t step) {
  const auto outputs = backend.outputs(phase.run(), step);
  if (backend.mine().size() == 0) {
    EXPECT_TRUE(outputs.empty());
    return;
  }
  std::vector<std::int64_t> tokens(kTokens);
  std::iota(tokens.begin(), tokens.end(), std::int64_t{backend.mine().begin} * kTokens);
  for (int layer = 0; layer < kModel.layers; ++layer) {
    const auto experts = phase.routing.token_experts(step, layer, phase.tokens());
    const std::size_t first = static_cast<std::size_t>(backend.mine().begin) * kTokens * 3;
    const auto expected = dense_reference(kModel, kSeed, layer, tokens,
                                          experts.flat().subspan(first, std::size_t{kTokens} * 3));
    ASSERT_EQ(outputs.row(layer).size(), expected.size());
    EXPECT_LT(largest_error(outputs.row(layer), expected, 24), 1e-5) << "layer " << layer;
  }
}

/// The fleet sizes that this launch can run with experts divided evenly, idle ranks included.
std::vector<int> fleet_sizes() {
  std::vector<int> sizes;
  for (const int devices : {1, 2, 4}) {
    if (devices <= world().size()) {
      sizes.push_back(devices);
    }
  }
  return sizes;
}

TEST(CpuBackend, IdentitiesAreTheSameOnEveryRankAndUnique) {
  for (const int devices : fleet_sizes()) {
    const CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    std::set<std::string> uuids;
    std::string joined;
    for (int d = 0; d < devices; ++d) {
      const auto& device = backend.fleet()[static_cast<std::size_t>(d)];
      EXPECT_EQ(device.device, d);
      EXPECT_EQ(device.rank, d);
      EXPECT_EQ(device.slot, d);
      EXPECT_EQ(device.node, 0);
      EXPECT_EQ(device.kind, "cpu");
      EXPECT_TRUE(device.uuid.starts_with("cpu-" + device.host + "-")) << device.uuid;
      uuids.insert(device.uuid);
      joined += device.uuid + " ";
    }
    EXPECT_EQ(uuids.size(), static_cast<std::size_t>(devices));
    EXPECT_EQ(world().all_gather(joined),
              std::vector<std::string>(static_cast<std::size_t>(world().size()), joined));
    EXPECT_EQ(backend.mine().size(), world().rank() < devices ? 1 : 0);
  }
}

TEST(CpuBackend, MoreDevicesThanRanksIsTheEnvironmentsFault) {
  try {
    const CpuBackend backend(world(), kModel, kSeed, 8, kTokens);
    ADD_FAILURE() << "8 devices on " << world().size() << " ranks";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), ExitStatus::environment);
    EXPECT_NE(std::string(error.what()).find("8 cpu devices"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("mpirun -np 8"), std::string::npos);
  }
}

TEST(CpuBackend, WeightsThatDoNotFitAreTheEnvironmentsFault) {
  auto huge = kModel;
  huge.hidden = 8192;
  huge.intermediate = 8192;
  huge.experts = 1024;
  huge.layers = 10'000;
  try {
    const CpuBackend backend(world(), huge, kSeed, 1, kTokens);
    ADD_FAILURE() << "8 PB fitted";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), ExitStatus::environment);
    EXPECT_NE(std::string(error.what()).find("MiB"), std::string::npos);
  }
}

TEST(CpuBackend, CapsAndHeatAreRefused) {
  CpuBackend backend(world(), kModel, kSeed, 1, kTokens);
  EXPECT_THROW(backend.enter({500.0, study::Heat::soaked}), InputError);
  EXPECT_THROW(backend.enter({{}, study::Heat::ambient}), InputError);
  EXPECT_THROW(backend.enter({{}, study::Heat::neighbours}), InputError);
  backend.enter({});
  const auto states = backend.settle().devices;
  ASSERT_EQ(states.size(), 1U);
  EXPECT_TRUE(std::isnan(states[0].cap.requested_w));
}

TEST(CpuBackend, SizesThatMakeNoLayerAreRefused) {
  auto wrong = kModel;
  wrong.top_k = 9;
  const auto status_of = [](const study::ModelShape& model, int devices, int tokens) {
    try {
      const CpuBackend backend(world(), model, kSeed, devices, tokens);
    } catch (const mpi::SharedError& error) {
      return error.status();
    }
    return ExitStatus::ok;
  };
  EXPECT_EQ(status_of(wrong, 1, kTokens), ExitStatus::bad_input);
  EXPECT_EQ(status_of(kModel, 0, kTokens), ExitStatus::bad_input);
  EXPECT_EQ(status_of(kModel, 1, 0), ExitStatus::bad_input);
}

TEST(CpuBackend, EveryOutputEqualsTheDenseReference) {
  for (const int devices : fleet_sizes()) {
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    const Phase phase(placed(devices, in_order()), 2);
    const auto loaded = backend.move_to(phase.placement);
    EXPECT_EQ(loaded.moved_experts, 0);
    EXPECT_EQ(loaded.bytes, 0);
    for (const std::int64_t step : {0, 5}) {
      expect_all_outputs_right(backend, phase, step);
    }
  }
}

/// Expert 5 in two slots with shares of 0.7 and 0.3; 10 slots on 1 or 2 devices.
TEST(CpuBackend, ReplicasShareTheirTokensAndGiveTheSameOutputs) {
  for (const int devices : fleet_sizes()) {
    if (devices == 4) {
      continue;
    }
    auto where = placed(devices, {0, 1, 2, 3, 5, 4, 5, 6, 7, 2}, 0);
    for (std::size_t layer = 0; layer < 3; ++layer) {
      where.share_of_slot(layer, 4) = 0.7;
      where.share_of_slot(layer, 6) = 0.3;
      where.share_of_slot(layer, 2) = 0.5;
      where.share_of_slot(layer, 9) = 0.5;
    }
    const Phase phase(std::move(where), 2);
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    backend.move_to(phase.placement);
    expect_all_outputs_right(backend, phase, 3);
    const auto result = backend.run(phase.run());
    for (std::size_t step = 0; backend.mine().size() > 0 && step < 2; ++step) {
      for (std::size_t layer = 0; layer < 3; ++layer) {
        std::vector<std::uint32_t> slots(static_cast<std::size_t>(10 / devices));
        SlotTokens(phase.placement, backend.mine())
            .count(layer, phase.loads.row(step, layer), slots);
        EXPECT_EQ(result.mine.tokens(0, step, layer),
                  std::accumulate(slots.begin(), slots.end(), 0U));
      }
    }
  }
}

/// 12 slots for 8 experts, as a policy places them; in layer 0 one replica takes all of its expert.
placement::Placement replicated(const char* policy, int devices, std::uint64_t seed) {
  const Phase phase(placed(devices, in_order()), 2);
  const placement::SpeedModels speeds(static_cast<std::size_t>(devices),
                                      placement::SpeedCurve({1.0}, {1.0}));
  const auto mean = workload::mean_loads(phase.loads);
  auto where =
      placement::solve(placement::find_policy(policy), {mean, speeds, devices, 12 / devices, seed});
  const auto shares = where.share_of_slot.row(0);
  const auto first = std::ranges::find_if(shares, [](double share) { return share < 1.0; });
  const auto expert = where.expert_of_slot(0, first - shares.begin());
  for (std::size_t slot = 0; slot < shares.size(); ++slot) {
    if (where.expert_of_slot(0, slot) == expert) {
      shares[slot] = &shares[slot] == &*first ? 1.0 : 0.0;
    }
  }
  return where;
}

TEST(CpuBackend, ReplicasOfPoliciesRunMoveAndGiveTheSameOutputs) {
  for (const int devices : fleet_sizes()) {
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens, 4);
    for (const char* policy : {"contiguous", "round_robin", "random", "eplb", "vibe"}) {
      SCOPED_TRACE(testing::Message() << policy << " on " << devices);
      const Phase phase(replicated(policy, devices, 5), 2);
      placement::check_placement(phase.placement, 8);
      (void)backend.move_to(phase.placement);
      const auto result = backend.run(phase.run());
      EXPECT_LT(result.reference_error, 1e-5);
      expect_all_outputs_right(backend, phase, 3);
      for (std::size_t step = 0; backend.mine().size() > 0 && step < 2; ++step) {
        for (std::size_t layer = 0; layer < 3; ++layer) {
          std::vector<std::uint32_t> slots(static_cast<std::size_t>(12 / devices));
          SlotTokens(phase.placement, backend.mine())
              .count(layer, phase.loads.row(step, layer), slots);
          EXPECT_EQ(result.mine.tokens(0, step, layer),
                    std::accumulate(slots.begin(), slots.end(), 0U));
        }
      }
    }
  }
}

TEST(CpuBackend, APlacementForEveryStepIsRefused) {
  CpuBackend backend(world(), kModel, kSeed, 1, kTokens);
  const Phase phase(placed(1, in_order()), 2);
  backend.move_to(phase.placement);
  const std::vector<placement::Placement> two(2, phase.placement);
  auto steps = phase.run();
  steps.placements = two;
  EXPECT_THROW((void)backend.run(steps), CheckError);
}

TEST(CpuBackend, ProfilesTheDevicesThatAreAskedFor) {
  for (const int devices : fleet_sizes()) {
    for (const auto which : {study::ProfiledDevices::together, study::ProfiledDevices::alone}) {
      CpuBackend backend(world(), kModel, kSeed, devices, kTokens, 0, {}, which);
      const std::vector<DeviceId> last{devices - 1};
      const auto models = backend.profile(8 / devices, 100.0, last);
      ASSERT_EQ(models.size(), 1U);
      EXPECT_GT(models.front().times()[1], 0.0);
      std::vector<double> largest(models.front().times().begin(), models.front().times().end());
      world().all_reduce_max(largest);
      EXPECT_TRUE(std::ranges::equal(largest, models.front().times())) << "ranks differ";
    }
  }
}

void expect_parts_add_up(const CpuBackend& backend, const PhaseResult& result) {
  const auto& mine = result.mine;
  const Nanoseconds residual = result.clock_residual_ns;
  for (std::size_t step = 0; step < mine.steps(); ++step) {
    for (std::size_t layer = 0; layer < mine.layers(); ++layer) {
      for (std::size_t d = 0; d < mine.devices(); ++d) {
        const auto dispatch = mine.dispatch_ns(d, step, layer);
        const auto expert = mine.expert_ns(d, step, layer);
        const auto wait = mine.wait_ns(d, step, layer);
        const auto combine = mine.combine_ns(d, step, layer);
        EXPECT_NEAR(static_cast<double>(dispatch + expert + wait + combine),
                    static_cast<double>(result.totals.layer_ns(step, layer)),
                    static_cast<double>(residual));
        EXPECT_GE(dispatch, -residual);
        EXPECT_GT(expert, 0);
        EXPECT_GE(wait, 0);
        EXPECT_GE(combine, -residual);
      }
      EXPECT_EQ(result.totals.devices, static_cast<int>(backend.fleet().size()));
      EXPECT_GT(result.totals.layer_ns(step, layer), 0);
      EXPECT_GT(result.totals.expert_min_ns(step, layer), 0);
      EXPECT_LE(result.totals.expert_max_ns(step, layer), result.totals.layer_ns(step, layer));
    }
  }
}

/// The fleet's step runs from the last entry to the last exit. The device that exits last took at
/// least that long, the one that entered last at most.
void expect_wall_clock_agrees(const CpuBackend& backend, const PhaseResult& result) {
  const bool idle = backend.mine().size() == 0;
  int bounded_below = 0;
  for (std::size_t step = 0; step < result.mine.steps(); ++step) {
    Nanoseconds fleet = 0;
    for (const auto layer_ns : result.totals.layer_ns.row(step)) {
      fleet += layer_ns;
    }
    const double own = idle ? 0.0 : 1e9 * backend.step_seconds()[step];
    double longest = own;
    double minus_shortest = idle ? -std::numeric_limits<double>::infinity() : -own;
    world().all_reduce_max(std::span(&longest, 1));
    world().all_reduce_max(std::span(&minus_shortest, 1));
    // NTP slews MPI's clock by up to 500 ppm; its readings lie up to 2 µs outside ours
    const double slack =
        static_cast<double>(result.clock_residual_ns) + 5e-4 * static_cast<double>(fleet) + 2000.0;
    EXPECT_LE(static_cast<double>(fleet), longest + slack);
    bounded_below += static_cast<double>(fleet) >= -minus_shortest - slack ? 1 : 0;
  }
  // a rank that loses its core between the two clocks' readings is long by a time slice
  EXPECT_GE(2 * bounded_below, static_cast<int>(result.mine.steps()));
}

TEST(CpuBackend, TimelinesAddUpAndAgreeWithTheWallClock) {
  for (const int devices : fleet_sizes()) {
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    const Phase phase(placed(devices, in_order()), 5);
    backend.move_to(phase.placement);
    const auto result = backend.run(phase.run());
    ASSERT_EQ(result.mine.devices(), static_cast<std::size_t>(backend.mine().size()));
    ASSERT_EQ(result.mine.steps(), 5U);
    ASSERT_EQ(backend.step_seconds().size(), backend.mine().size() > 0 ? 5U : 0U);
    expect_parts_add_up(backend, result);
    expect_wall_clock_agrees(backend, result);
    EXPECT_GT(result.reference_error, 0.0);
    EXPECT_LT(result.reference_error, 1e-5);
    for (std::size_t step = 0; step < 5; ++step) {
      for (std::size_t layer = 0; layer < 3; ++layer) {
        EXPECT_EQ(result.totals.tokens_sum(step, layer), phase.tokens() * 3);
      }
    }
    std::vector<std::int64_t> same{result.clock_residual_ns, result.totals.layer_ns(4, 2)};
    auto least = same;
    world().all_reduce_min(least);
    world().all_reduce_max(same);
    EXPECT_EQ(least, same) << "totals differ between ranks";
    if (world().is_root()) {
      std::printf("%d devices: residual %lld ns, reference error %.2g\n", devices,
                  static_cast<long long>(result.clock_residual_ns), result.reference_error);
    }
  }
}

TEST(CpuBackend, ExpertsMoveAndOutputsStayRight) {
  for (const int devices : fleet_sizes()) {
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    const Phase first(placed(devices, in_order()), 2);
    const Phase second(placed(devices, backwards(), 3), 2);
    backend.move_to(first.placement);
    (void)backend.run(first.run());
    EXPECT_THROW((void)backend.run(second.run()), CheckError) << "experts are not there yet";
    const auto expected = placement::moves_between(first.placement, second.placement);
    const auto migration = backend.move_to(second.placement);
    EXPECT_EQ(migration.moved_experts, static_cast<std::int64_t>(expected.size()));
    EXPECT_EQ(migration.bytes, migration.moved_experts * 3 * 24 * 20 * 4);
    EXPECT_EQ(migration.moved_experts > 0, devices > 1);
    EXPECT_GE(migration.time_ms, 0.0);
    if (auto* device = backend.device(); device != nullptr) {
      for (int layer = 0; layer < 3; ++layer) {
        for (int s = 0; s < device->slots(); ++s) {
          const auto& slot = device->at(layer, s);
          EXPECT_EQ(slot.expert, second.placement.expert_of_slot(
                                     layer, backend.mine().begin * device->slots() + s));
          EXPECT_EQ(slot.weights->checksum(), device->expected_checksum(layer, slot.expert));
        }
      }
    }
    (void)backend.run(second.run());
    expect_all_outputs_right(backend, second, 4);
    EXPECT_EQ(backend.move_to(second.placement).moved_experts, 0);
    backend.move_to(first.placement);
    expect_all_outputs_right(backend, first, 4);
  }
}

/// Every expert in two neighbouring slots, with half of its tokens each.
placement::Placement twice(int devices, const std::vector<std::int32_t>& order) {
  std::vector<std::int32_t> doubled;
  for (const auto expert : order) {
    doubled.insert(doubled.end(), 2, expert);
  }
  auto placement = placed(devices, doubled, 2);
  std::ranges::fill(placement.share_of_slot.flat(), 0.5);
  return placement;
}

TEST(CpuBackend, AnExpertForTwoSlotsOfADeviceMovesOnce) {
  for (const int devices : fleet_sizes()) {
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens, kModel.experts);
    const Phase first(twice(devices, in_order()), 1);
    const Phase second(twice(devices, backwards()), 1);
    backend.move_to(first.placement);
    const auto migration = backend.move_to(second.placement);
    EXPECT_EQ(migration.moved_experts,
              std::ssize(placement::plan_migration(first.placement, second.placement)));
    EXPECT_EQ(migration.moved_experts > 0, devices > 1);
    expect_all_outputs_right(backend, second, 4);
    if (auto* device = backend.device(); device != nullptr) {
      for (int layer = 0; layer < 3; ++layer) {
        for (int s = 0; s < device->slots(); ++s) {
          const auto& slot = device->at(layer, s);
          EXPECT_EQ(slot.weights, device->find(layer, slot.expert)->weights) << "shared memory";
          EXPECT_EQ(slot.weights->checksum(), device->expected_checksum(layer, slot.expert));
        }
      }
    }
    backend.move_to(first.placement);
    expect_all_outputs_right(backend, first, 4);
  }
}

TEST(CpuBackend, ACorruptedWeightIsFoundWhenItMoves) {
  for (const int devices : fleet_sizes()) {
    if (devices == 1) {
      continue;
    }
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    backend.move_to(placed(devices, in_order()));
    if (backend.mine().begin == 0 && backend.mine().size() > 0) {
      backend.device()->at(0, 0).weights->values()[7] += 1e-6F;  // expert 0 goes to the last
    }
    try {
      backend.move_to(placed(devices, backwards(), 3));
      ADD_FAILURE() << "wrong weights were taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), ExitStatus::check_failed);
      EXPECT_NE(std::string(error.what()).find("layer 0, expert 0, device 0 to"), std::string::npos)
          << error.what();
    }
  }
}

TEST(CpuBackend, ACorruptedWeightIsFoundByTheReference) {
  for (const int devices : fleet_sizes()) {
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    const Phase phase(placed(devices, in_order()), 1);
    backend.move_to(phase.placement);
    if (backend.mine().begin == 0 && backend.mine().size() > 0) {
      for (float& value : backend.device()->at(0, 0).weights->values()) {
        value *= 1.01F;  // expert 0, to which every third token goes
      }
    }
    try {
      (void)backend.run(phase.run());
      ADD_FAILURE() << "wrong outputs were taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), ExitStatus::check_failed);
      EXPECT_NE(std::string(error.what()).find("dense reference"), std::string::npos);
    }
  }
}

TEST(CpuBackend, ProfilesAreTheSameOnEveryRankAndRise) {
  for (const int devices : fleet_sizes()) {
    CpuBackend backend(world(), kModel, kSeed, devices, kTokens);
    const int slots = 8 / devices;
    const auto fresh = backend.profile(slots, 200.0, {});
    backend.move_to(placed(devices, in_order()));
    const auto loaded = backend.profile(slots, 200.0, {});
    for (const auto& models : {fresh, loaded}) {
      ASSERT_EQ(models.size(), static_cast<std::size_t>(devices));
      for (const auto& curve : models) {
        EXPECT_GE(curve.grid().back(), 200.0);
        EXPECT_GT(curve.times()[1], 0.0);
        std::vector<double> largest(curve.times().begin(), curve.times().end());
        world().all_reduce_max(largest);
        EXPECT_TRUE(std::ranges::equal(largest, curve.times())) << "ranks differ";
      }
    }
  }
}

}  // namespace
}  // namespace moevar::run
