#include "expert_ffn/expert_ffn_cuda.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "expert_ffn/emulation.hpp"
#include "gpu_test.hpp"

namespace moevar::expert_ffn {
namespace {

using emulation::Experts;
using emulation::HostRun;
using emulation::Slots;

constexpr double kBf16Error = 2e-2;
/// Of e4m3, by emulation on the host (expert_ffn_layout_test): 6.5e-2 for normally distributed
/// weights.
constexpr double kFp8Error = 8e-2;
/// Between the GPU's sums and the host's, from equal operands.
constexpr double kSumsError = 2e-2;

double relative(std::span<const BFloat16> y, std::span<const double> expected) {
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    difference += std::pow(static_cast<double>(y[i].value()) - expected[i], 2);
    norm += expected[i] * expected[i];
  }
  const double error = std::sqrt(difference / norm);
  return std::isnan(error) ? INFINITY : error;
}

std::vector<double> doubles(std::span<const BFloat16> from) {
  std::vector<double> all(from.size());
  std::transform(from.begin(), from.end(), all.begin(),
                 [](BFloat16 v) { return static_cast<double>(v.value()); });
  return all;
}

/// Experts with their slots on the GPU, and rows for them.
struct OnGpu {
  Experts experts;
  Precision precision;
  cuda::Stream stream;
  std::vector<cuda::DeviceArray<std::byte>> slots;
  std::vector<DeviceGroup> groups;
  cuda::DeviceArray<BFloat16> x;
  cuda::DeviceArray<BFloat16> y;

  OnGpu(const Shape& shape, Precision with, std::vector<std::size_t> rows, std::uint64_t key)
      : experts(shape, std::move(rows), key),
        precision(with),
        x(experts.x.size()),
        y(experts.x.size()) {
    slots.reserve(experts.plain.size());
    groups.reserve(experts.plain.size());
    for (std::size_t e = 0; e < experts.plain.size(); ++e) {
      const auto& plain = experts.plain[e];
      const cuda::DeviceArray<BFloat16> there(plain.size());
      cuda::to_device(std::span(plain), there.data(), stream);
      slots.emplace_back(slot_bytes(shape, precision));
      to_slot(shape, precision, there.data(), slots.back().data(), stream);
      stream.synchronise();
      groups.push_back({experts.rows[e] == 0 ? nullptr : slots.back().data(), experts.rows[e]});
    }
    cuda::to_device(std::span<const BFloat16>(experts.x), x.data(), stream);
    poison();
  }

  [[nodiscard]] DeviceOptions options(Method method = Method::automatic) const {
    return {groups.size(), experts.total(), method, 0};
  }

  void poison() const {
    if (y.bytes() > 0) {
      MOEVAR_CUDA(cudaMemsetAsync(y.data(), 0xFF, y.bytes(), stream.raw()));
    }
  }

  [[nodiscard]] std::vector<BFloat16> result() const {
    std::vector<BFloat16> values(y.size());
    cuda::to_host(y.data(), std::span(values), stream);
    stream.synchronise();
    return values;
  }

  [[nodiscard]] std::vector<BFloat16> run(DeviceExperts& device) const {
    poison();
    device.run(groups, x.data(), y.data(), stream);
    return result();
  }

  /// What the same steps give on the host.
  [[nodiscard]] std::vector<double> emulated() {
    const Slots on_host(experts, precision);
    HostRun run(experts, on_host, precision);
    run.run();
    return doubles(run.y);
  }
};

/// Every way that this GPU has, each first one with one of the second and the other way round.
void for_every_way(DeviceExperts& device,
                   const std::function<void(const std::string& name)>& check) {
  const auto ways = device.ways();
  ASSERT_FALSE(ways.first.empty());
  for (std::size_t i = 0; i < std::max(ways.first.size(), ways.second.size()); ++i) {
    const std::size_t first = i % ways.first.size();
    const std::size_t second = i % ways.second.size();
    device.force(first, second);
    check(fmt::format("{}, then {}", ways.first[first], ways.second[second]));
  }
}

class ExpertFfnCuda : public GpuTest, public testing::WithParamInterface<Precision> {
 protected:
  static double most_error() { return GetParam() == Precision::bf16 ? kBf16Error : kFp8Error; }

  static void expect_right(OnGpu& on_gpu) {
    const auto reference = on_gpu.experts.reference();
    const auto emulated = on_gpu.emulated();
    DeviceExperts device(on_gpu.experts.shape, GetParam(), on_gpu.options());
    for_every_way(device, [&](const std::string& name) {
      const auto y = on_gpu.run(device);
      EXPECT_LT(relative(y, reference), most_error()) << name;
      EXPECT_LT(relative(y, emulated), kSumsError) << name;
      EXPECT_EQ(y, on_gpu.run(device)) << name << " gives other bits a second time";
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Precisions, ExpertFfnCuda,
                         testing::Values(Precision::bf16, Precision::fp8), [](const auto& tested) {
                           return tested.param == Precision::bf16 ? "bf16" : "fp8";
                         });

TEST_P(ExpertFfnCuda, SlotsHoldWhatTheHostPutsThere) {
  const OnGpu on_gpu({144, 80}, GetParam(), {1, 2}, 1);
  const Slots expected(on_gpu.experts, GetParam());
  for (std::size_t e = 0; e < expected.all.size(); ++e) {
    std::vector<std::byte> bytes(expected.all[e].size());
    cuda::to_host(on_gpu.slots[e].data(), std::span(bytes), on_gpu.stream);
    on_gpu.stream.synchronise();
    EXPECT_EQ(bytes, expected.all[e]);
  }
}

TEST_P(ExpertFfnCuda, EveryWayAgreesWithTheReference) {
  for (const Shape& shape : {Shape{16, 16}, Shape{272, 208}, Shape{1024, 528}}) {
    OnGpu on_gpu(shape, GetParam(), {5, 0, 1, 17, 0, 133, 1, 64, 2}, 10 + shape.hidden);
    expect_right(on_gpu);
  }
}

TEST_P(ExpertFfnCuda, OneHotExpert) {
  OnGpu on_gpu({256, 128}, GetParam(), {0, 0, 0, 1111, 0, 1}, 20);
  expect_right(on_gpu);
}

TEST_P(ExpertFfnCuda, MoreGroupsThanAKernelsArgumentsHold) {
  std::vector<std::size_t> rows(300);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = i * 7 % 4;
  }
  OnGpu on_gpu({32, 48}, GetParam(), rows, 30);
  expect_right(on_gpu);
}

TEST_P(ExpertFfnCuda, NoRowsWriteNothing) {
  const OnGpu on_gpu({64, 64}, GetParam(), {3, 4}, 40);
  DeviceExperts device({64, 64}, GetParam(), on_gpu.options());
  const auto untouched = on_gpu.result();
  const std::vector<DeviceGroup> empty(2);
  device.run(empty, on_gpu.x.data(), on_gpu.y.data(), on_gpu.stream);
  device.run({}, on_gpu.x.data(), on_gpu.y.data(), on_gpu.stream);
  EXPECT_EQ(on_gpu.result(), untouched);
}

/// One object, runs of other counts one after the other without waiting between them.
TEST_P(ExpertFfnCuda, RunsFollowEachOther) {
  const Shape shape{128, 96};
  const OnGpu many(shape, GetParam(), {70, 3, 50}, 50);
  const OnGpu few(shape, GetParam(), {0, 9, 1}, 51);
  DeviceExperts device(shape, GetParam(), many.options());
  for_every_way(device, [&](const std::string& name) {
    many.poison();
    few.poison();
    many.stream.synchronise();
    few.stream.synchronise();
    for (int i = 0; i < 3; ++i) {
      device.run(many.groups, many.x.data(), many.y.data(), many.stream);
      device.run(few.groups, few.x.data(), few.y.data(), many.stream);
    }
    many.stream.synchronise();
    EXPECT_LT(relative(many.result(), many.experts.reference()), most_error()) << name;
    EXPECT_LT(relative(few.result(), few.experts.reference()), most_error()) << name;
  });
}

/// A graph repeats the work on what its input holds then, whatever ran in between.
TEST_P(ExpertFfnCuda, WorksInAGraph) {
  const Shape shape{128, 96};
  const OnGpu here(shape, GetParam(), {70, 0, 50}, 60);
  const OnGpu other(shape, GetParam(), {1, 90, 2}, 61);
  DeviceExperts device(shape, GetParam(), here.options());
  for_every_way(device, [&](const std::string& name) {
    const auto expected = here.run(device);
    const auto graph = cuda::Graph::of(
        here.stream, [&] { device.run(here.groups, here.x.data(), here.y.data(), here.stream); });
    for (int i = 0; i < 2; ++i) {
      (void)other.run(device);
      here.poison();
      graph.launch(here.stream);
      EXPECT_EQ(here.result(), expected) << name;
    }
  });
}

TEST_P(ExpertFfnCuda, APartOfTheMultiprocessorsGivesTheSame) {
  OnGpu on_gpu({256, 128}, GetParam(), {300, 20, 5}, 70);
  auto options = on_gpu.options();
  options.sm_limit = 8;
  DeviceExperts device({256, 128}, GetParam(), options);
  const auto emulated = on_gpu.emulated();
  for_every_way(device, [&](const std::string& name) {
    EXPECT_LT(relative(on_gpu.run(device), emulated), kSumsError) << name;
  });
}

TEST_P(ExpertFfnCuda, TunedRunsAreRight) {
  OnGpu on_gpu({512, 256}, GetParam(), {40, 100, 7, 33}, 80);
  for (const Method method : {Method::automatic, Method::cublaslt}) {
    DeviceExperts device({512, 256}, GetParam(), on_gpu.options(method));
    const std::vector<const void*> slots{on_gpu.slots[0].data(), on_gpu.slots[1].data()};
    const std::vector<std::size_t> rows{8, 64, 1U << 30U};
    device.tune(slots, rows, on_gpu.stream);
    EXPECT_FALSE(device.chosen(8).empty());
    EXPECT_LT(relative(on_gpu.run(device), on_gpu.emulated()), kSumsError) << device.chosen(45);
    if (method == Method::cublaslt) {
      EXPECT_NE(device.chosen(8).find("cublaslt"), std::string::npos);
      EXPECT_EQ(device.chosen(8).find("cutlass"), std::string::npos);
    }
  }
}

TEST_P(ExpertFfnCuda, RefusesWhatItWasNotMadeFor) {
  const OnGpu on_gpu({64, 64}, GetParam(), {3, 4}, 90);
  DeviceExperts device({64, 64}, GetParam(), {1, 7, Method::automatic, 0});
  EXPECT_THROW(device.run(on_gpu.groups, on_gpu.x.data(), on_gpu.y.data(), on_gpu.stream),
               InputError);
  DeviceExperts fewer({64, 64}, GetParam(), {2, 6, Method::automatic, 0});
  EXPECT_THROW(fewer.run(on_gpu.groups, on_gpu.x.data(), on_gpu.y.data(), on_gpu.stream),
               InputError);
  EXPECT_THROW(DeviceExperts({64, 72}, GetParam(), on_gpu.options()), InputError);
  EXPECT_THROW(device.force(99, 0), InputError);
}

}  // namespace
}  // namespace moevar::expert_ffn
