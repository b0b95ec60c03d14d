#include "run/placer.hpp"

#include <cstdint>

#include <gtest/gtest.h>

#include "base/random.hpp"
#include "run/model_backend.hpp"

namespace moevar::run {
namespace {

constexpr int kSteps = 6;
constexpr int kLayers = 2;
constexpr int kExperts = 12;
constexpr int kTokens = 3000;

workload::Loads uneven_loads(std::uint64_t seed) {
  workload::Loads loads({kSteps, kLayers, kExperts});
  std::uint64_t i = 0;
  for (auto& count : loads.flat()) {
    count = static_cast<std::uint32_t>(RandomKey(seed)[i++].below(2000));
  }
  return loads;
}

study::PhaseSpec phase_of(int index, int repeat, int devices, const char* policy) {
  return {.index = index,
          .repeat = repeat,
          .devices = devices,
          .condition = {},
          .policy = policy,
          .new_condition = false,
          .experts = kExperts,
          .slots_per_device = kExperts / devices};
}

TEST(Placer, KeepsThePlansOfSingleStepsOfOnePhaseAlone) {
  const auto world = mpi::Communicator::world();
  study::Study study;
  study.model = {"", 4096, 1536, kExperts, 2, kLayers};
  study.placement.recompute = study::Recompute::once;
  const auto planned = uneven_loads(1);
  const auto measured = uneven_loads(2);
  const auto mean = workload::mean_loads(planned);
  Placer placer(world, study);
  int index = 0;
  for (const int devices : {4, 6}) {
    ModelBackend backend(world, {}, study.model, 1, devices, kTokens);
    backend.enter({});
    placer.profile(phase_of(0, 0, devices, ""), backend, mean);
    std::size_t in_advance = static_cast<std::size_t>(index) / 4;
    for (const char* policy : {"oracle", "harmoeny", "eplb", "oracle"}) {
      const auto phase = phase_of(index++, 0, devices, policy);
      const auto placing = placer.place(phase, backend, {planned, measured, mean});
      const bool per_step = std::string(policy) != "eplb";
      EXPECT_EQ(placing.placements.size(), per_step ? kSteps : 1U);
      EXPECT_EQ(placing.per_step, per_step);
      in_advance += per_step ? 0 : 1;
      EXPECT_EQ(placer.placements_kept(), in_advance + (per_step ? kSteps : 0)) << policy;
    }
  }
  // what was placed in advance is kept
  ModelBackend backend(world, {}, study.model, 1, 4, kTokens);
  backend.enter({});
  EXPECT_EQ(placer.place(phase_of(index, 1, 4, "eplb"), backend, {planned, measured, mean}).because,
            "kept");
}

}  // namespace
}  // namespace moevar::run
