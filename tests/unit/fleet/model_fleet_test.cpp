#include "fleet/model_fleet.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace moevar::fleet {
namespace {

constexpr int kSeeds = 40;
constexpr int kLonghorn = 392;

OperatingPoint operating_point(const GpuFamily& family, std::uint64_t seed, DeviceId g,
                               double cap_w, const FleetOptions& options = {}) {
  return solve_steady(family, draw_gpu(family, options, seed, g), gemm_activity(), cap_w);
}

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

double sd(const std::vector<double>& x) {
  const double centre = mean(x);
  double sum = 0.0;
  for (const double value : x) {
    sum += (value - centre) * (value - centre);
  }
  return std::sqrt(sum / static_cast<double>(x.size() - 1));
}

double quantile(const std::vector<double>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - static_cast<double>(below));
}

/// From the lowest to the highest value inside 1.5 quartile ranges of the box, over the median.
double whisker_range(std::vector<double> x) {
  std::ranges::sort(x);
  const double q1 = quantile(x, 0.25);
  const double q3 = quantile(x, 0.75);
  const double reach = 1.5 * (q3 - q1);
  const auto low = std::ranges::lower_bound(x, q1 - reach);
  const auto high = std::ranges::upper_bound(x, q3 + reach) - 1;
  return (*high - *low) / quantile(x, 0.5);
}

/// Expectation of the largest of n draws with replacement from x, over x's median. Exact.
double expected_maximum(std::vector<double> x, int n) {
  std::ranges::sort(x);
  const auto size = static_cast<double>(x.size());
  double sum = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto rank = static_cast<double>(i);
    sum += x[i] * (std::pow((rank + 1) / size, n) - std::pow(rank / size, n));
  }
  return sum / quantile(x, 0.5);
}

/// Per-GPU medians of the measured V100 fleet; empty where its file is absent.
struct Measured {
  std::vector<double> time_ms, clock_mhz, temperature_c, power_w;
};

Measured longhorn() {
  std::ifstream file(MOEVAR_SHARED_DATA "/gpu-fleets/longhorn_v100_sgemm.csv");
  std::map<std::string, std::vector<std::vector<double>>> runs;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::vector<std::string> cells;
    std::istringstream row(line);
    for (std::string cell; std::getline(row, cell, ',');) {
      cells.push_back(cell);
    }
    auto& gpu = runs[cells.at(3)];
    gpu.resize(4);
    for (std::size_t k = 0; k < 4; ++k) {
      constexpr std::array<std::size_t, 4> kColumns{11, 12, 14, 15};
      gpu[k].push_back(std::stod(cells.at(kColumns[k])));
    }
  }
  Measured fleet;
  for (auto& [uuid, values] : runs) {
    for (auto& column : values) {
      std::ranges::sort(column);
    }
    fleet.time_ms.push_back(quantile(values[0], 0.5));
    fleet.clock_mhz.push_back(quantile(values[1], 0.5));
    fleet.temperature_c.push_back(quantile(values[2], 0.5));
    fleet.power_w.push_back(quantile(values[3], 0.5));
  }
  return fleet;
}

/// Kernel times, up to a factor, of the default V100 fleet that scale laws are computed on.
const std::vector<double>& v100_times() {
  static const std::vector<double> times = [] {
    const auto& family = find_family("v100-sxm2");
    std::vector<double> all;
    constexpr DeviceId kGpus = 60'000;
    all.reserve(kGpus);
    for (DeviceId g = 0; g < kGpus; ++g) {
      all.push_back(1.0 / operating_point(family, 1, g, 300).clock_mhz);
    }
    return all;
  }();
  return times;
}

TEST(ModelFleet, ReferenceDraws) {
  const auto& family = find_family("v100-sxm2");
  const auto first = operating_point(family, 1, 0, 300);
  EXPECT_NEAR(first.clock_mhz, 1368.122, 0.0005);
  EXPECT_NEAR(first.temperature_c, 65.336, 0.0005);
  EXPECT_EQ(first.limit, Limit::power_cap);
  const auto second = operating_point(family, 1, 1, 300);
  EXPECT_NEAR(second.clock_mhz, 1355.135, 0.0005);
  EXPECT_NEAR(second.temperature_c, 70.491, 0.0005);
  EXPECT_EQ(second.limit, Limit::power_cap);
  const auto hot = operating_point(family, 1, 9, 300);
  EXPECT_NEAR(hot.clock_mhz, 1275.395, 0.0005);
  EXPECT_NEAR(hot.power_w, 290.854, 0.0005);
  EXPECT_EQ(hot.limit, Limit::thermal);
  const auto hotter = operating_point(family, 1, 81, 300);
  EXPECT_NEAR(hotter.clock_mhz, 1184.927, 0.0005);
  EXPECT_NEAR(hotter.power_w, 252.720, 0.0005);
  EXPECT_EQ(hotter.limit, Limit::thermal);
}

TEST(ModelFleet, FirstBadlyCooledGpus) {
  const auto& family = find_family("v100-sxm2");
  std::vector<DeviceId> badly_cooled;
  for (DeviceId g = 0; badly_cooled.size() < 3; ++g) {
    // without the ordinary spread only bad cooling moves the resistance
    if (draw_gpu(family, {.spread = 0.0}, 1, g).resistance > 1.0) {
      badly_cooled.push_back(g);
    }
  }
  EXPECT_EQ(badly_cooled, (std::vector<DeviceId>{9, 81, 187}));
}

TEST(ModelFleet, SpreadScalesChipsAndNothingElse) {
  const auto& family = find_family("h100-sxm5");
  const auto none = draw_gpu(family, {.spread = 0.0}, 7, 3);
  const auto once = draw_gpu(family, {}, 7, 3);
  const auto twice = draw_gpu(family, {.spread = 2.0}, 7, 3);
  EXPECT_EQ(none.sensor_gain, 1.0);
  EXPECT_EQ(none.leakage, 1.0);
  EXPECT_NEAR(twice.sensor_gain - 1.0, 2.0 * (once.sensor_gain - 1.0), 1e-15);
  EXPECT_DOUBLE_EQ(twice.voltage_shift, 2.0 * once.voltage_shift);
  EXPECT_NEAR(twice.leakage, once.leakage * once.leakage, 1e-12);
  EXPECT_EQ(none.t_in_c, twice.t_in_c);
  EXPECT_EQ(none.noise_sd, twice.noise_sd);
  EXPECT_EQ(once.slot_sign, 1);
  for (DeviceId g = 0; g < 100; ++g) {
    const double gain = draw_gpu(family, {.spread = 10.0}, 7, g).sensor_gain;
    EXPECT_GE(gain, 0.95);
    EXPECT_LE(gain, 1.05);
  }
}

TEST(ModelFleet, HomogeneousIsNominal) {
  const auto& family = find_family("mi300x");
  for (DeviceId g = 0; g < 300; ++g) {
    const auto gpu = draw_gpu(family, {.homogeneous = true}, 1, g);
    EXPECT_EQ(gpu.noise_sd, 0.0);
    EXPECT_EQ(gpu.slot_sign, 0);
    EXPECT_EQ(solve_steady(family, gpu, gemm_activity(), 750).clock_mhz,
              solve_steady(family, {.t_in_c = family.t_in_c}, gemm_activity(), 750).clock_mhz);
  }
}

TEST(ModelFleet, FailSlowIsOffUnlessAskedFor) {
  const auto& family = find_family("h100-sxm5");
  int slow = 0;
  for (DeviceId g = 0; g < 20'000; ++g) {
    EXPECT_EQ(draw_gpu(family, {}, 1, g).slow_factor, 1.0);
    const double factor = draw_gpu(family, {.fail_slow = true}, 1, g).slow_factor;
    slow += factor > 1.0 ? 1 : 0;
    EXPECT_LE(factor, 2.0);
  }
  EXPECT_GT(slow, 5);  // 20 expected
  EXPECT_LT(slow, 40);
}

TEST(ModelFleet, Identities) {
  const auto identity = model_identity(find_family("h100-sxm5"), 42, 19);
  EXPECT_EQ(identity.device, 19);
  EXPECT_EQ(identity.kind, "model");
  EXPECT_EQ(identity.uuid, "model-h100-sxm5-42-19");
  EXPECT_EQ(identity.name, "h100-sxm5 (modelled)");
  EXPECT_EQ(identity.node, 2);
  EXPECT_EQ(identity.slot, 3);
}

TEST(ModelFleet, RunNoiseKeyIsTheReferences) {
  EXPECT_EQ(run_noise_key(1, 5)[77].bits(), mix(mix(mix(mix(1) ^ 5U) ^ 200U) ^ 77U));
}

TEST(ModelFleet, Vt7V100Fleet) {
  const auto& family = find_family("v100-sxm2");
  std::vector<double> medians, cvs, whiskers, temperatures, temperature_sds;
  for (int seed = 1; seed <= kSeeds; ++seed) {
    std::vector<double> clocks, bound, times, t;
    for (DeviceId g = 0; g < kLonghorn; ++g) {
      const auto key = static_cast<std::uint64_t>(seed);
      const auto point = operating_point(family, key, g, 300);
      clocks.push_back(point.clock_mhz);
      times.push_back(1.0 / point.clock_mhz);
      t.push_back(point.temperature_c);
      if (point.limit == Limit::power_cap) {
        bound.push_back(point.clock_mhz);
      }
    }
    std::ranges::sort(clocks);
    medians.push_back(quantile(clocks, 0.5));
    cvs.push_back(100 * sd(bound) / mean(bound));
    whiskers.push_back(100 * whisker_range(times));
    temperatures.push_back(mean(t));
    temperature_sds.push_back(sd(t));
  }
  EXPECT_NEAR(mean(medians), 1365, 0.01 * 1365);
  EXPECT_NEAR(mean(cvs), 1.69, 0.2);
  EXPECT_NEAR(mean(whiskers), 8.9, 1.0);
  EXPECT_NEAR(mean(temperatures), 65.6, 1.0);
  EXPECT_NEAR(mean(temperature_sds), 6.4, 0.7);

  const auto clock_at = [&](double t) {
    const GpuTraits gpu{.t_in_c = family.t_in_c};
    return clock_for_power(family, gpu, gemm_activity(), t, regulated_power_w(family, gpu, 300));
  };
  const double slope = (clock_at(66.58) - clock_at(64.58)) / 2.0;
  EXPECT_LE(slope, -1.74);
  EXPECT_GE(slope, -1.98);
  std::printf(
      "VT7 median %.1f MHz (1365), CV %.2f +- %.2f %% (1.69 +- 0.2), whisker %.2f +- %.2f %% "
      "(8.9 +- 1), T %.1f sd %.1f C (65.6, 6.4), df/dT %.2f MHz/C (-1.74 to -1.98)\n",
      mean(medians), mean(cvs), sd(cvs), mean(whiskers), sd(whiskers), mean(temperatures),
      mean(temperature_sds), slope);
}

TEST(ModelFleet, Vt8V100ScaleLaw) {
  const std::map<int, double> measured{{8, 1.029}, {16, 1.041}, {32, 1.053}, {64, 1.071}};
  for (const auto& [n, expected] : measured) {
    const double reached = expected_maximum(v100_times(), n);
    EXPECT_NEAR(reached, expected, 0.01) << n << " GPUs";
    std::printf("VT8 N = %d: %.4f (%.3f +- 0.01)\n", n, reached, expected);
  }
}

TEST(ModelFleet, Vt7AndVt8AgainstTheMeasuredFleet) {
  const auto measured = longhorn();
  if (measured.time_ms.empty()) {
    GTEST_SKIP() << "shared data set gpu-fleets/longhorn_v100_sgemm.csv is not here";
  }
  ASSERT_EQ(measured.time_ms.size(), 392U);
  for (const int n : {8, 16, 32, 64}) {
    const double modelled = expected_maximum(v100_times(), n);
    const double expected = expected_maximum(measured.time_ms, n);
    EXPECT_NEAR(modelled, expected, 0.01) << n << " GPUs";
    std::printf("against Longhorn: N = %d: %.4f (%.4f)\n", n, modelled, expected);
  }
  std::vector<double> bound;
  for (std::size_t i = 0; i < measured.clock_mhz.size(); ++i) {
    if (measured.power_w[i] > 290.0) {
      bound.push_back(measured.clock_mhz[i]);
    }
  }
  const auto& family = find_family("v100-sxm2");
  std::vector<double> modelled, temperatures;
  for (DeviceId g = 0; g < 20'000; ++g) {
    const auto point = operating_point(family, 1, g, 300);
    temperatures.push_back(point.temperature_c);
    if (point.limit == Limit::power_cap) {
      modelled.push_back(point.clock_mhz);
    }
  }
  std::printf(
      "against Longhorn: CV %.2f (%.2f) %%, mean %.1f (%.1f) MHz, T %.1f sd %.1f (%.1f sd %.1f) "
      "C\n",
      100 * sd(modelled) / mean(modelled), 100 * sd(bound) / mean(bound), mean(modelled),
      mean(bound), mean(temperatures), sd(temperatures), mean(measured.temperature_c),
      sd(measured.temperature_c));
  EXPECT_NEAR(100 * sd(modelled) / mean(modelled), 100 * sd(bound) / mean(bound), 0.2);
  EXPECT_NEAR(mean(modelled), mean(bound), 0.01 * mean(bound));
  EXPECT_NEAR(mean(temperatures), mean(measured.temperature_c), 1.0);
  EXPECT_NEAR(sd(temperatures), sd(measured.temperature_c), 0.7);
}

TEST(ModelFleet, Vt10EightGpuNodes) {
  struct Node {
    const char* family;
    bool in_band;
  };
  // the A100 is below the band: its clock follows power least; no node of it has been measured
  for (const auto& [name, in_band] : std::vector<Node>{
           {"h100-sxm5", true}, {"mi300x", true}, {"v100-sxm2", true}, {"a100-sxm4", false}}) {
    const auto& family = find_family(name);
    std::vector<double> ranges;
    constexpr DeviceId kNodes = 2000;
    for (DeviceId node = 0; node < kNodes; ++node) {
      std::vector<double> clocks;
      for (DeviceId slot = 0; slot < kGpusPerNode; ++slot) {
        clocks.push_back(
            operating_point(family, 1, node * kGpusPerNode + slot, family.tdp_w).clock_mhz);
      }
      const auto [slowest, fastest] = std::ranges::minmax(clocks);
      ranges.push_back(100 * (fastest - slowest) / mean(clocks));
    }
    if (in_band) {
      EXPECT_GE(mean(ranges), 3.0) << name;
      EXPECT_LE(mean(ranges), 9.0) << name;
    }
    std::ranges::sort(ranges);
    std::printf("VT10 %s: node range %.2f %%, p5 to p95 %.1f to %.1f (mean in 3 to 9%s)\n", name,
                mean(ranges), quantile(ranges, 0.05), quantile(ranges, 0.95),
                in_band ? "" : "; not applied here");
  }
}

TEST(ModelFleet, Vt12StreamingMemoryShowsNoSpread) {
  const auto& family = find_family("h100-sxm5");
  for (const double cap : {700.0, 500.0, 300.0, 200.0}) {
    std::vector<double> times, clocks;
    for (DeviceId g = 0; g < 4096; ++g) {
      const auto gpu = draw_gpu(family, {}, 1, g);
      const auto point = solve_steady(family, gpu, memory_activity(family), cap);
      clocks.push_back(point.clock_mhz);
      times.push_back(kernel_time_ns(family, gpu, 1e10, 1e10, point.clock_mhz));
    }
    const auto [fastest, slowest] = std::ranges::minmax(times);
    EXPECT_LT(slowest / fastest - 1.0, 0.005) << cap;
    std::printf("VT12 H100 at %.0f W, streaming: time spread %.2f %% (< 0.5), clocks' CV %.2f %%\n",
                cap, 100 * (slowest / fastest - 1.0), 100 * sd(clocks) / mean(clocks));
  }
}

TEST(ModelFleet, Vt13NotPowerBoundRunsAtTheHighestClock) {
  const auto& family = find_family("h100-sxm5");
  std::vector<double> times;
  double noise = 0.0;
  constexpr DeviceId kGpus = 4096;
  for (DeviceId g = 0; g < kGpus; ++g) {
    const auto gpu = draw_gpu(family, {}, 1, g);
    const auto point = solve_steady(family, gpu, {.level = 0.3}, family.cap_max_w);
    EXPECT_EQ(point.clock_mhz, family.f_max_mhz) << g;
    EXPECT_EQ(point.limit, Limit::max_clock) << g;
    times.push_back(kernel_time_ns(family, gpu, 1e12, 0.0, point.clock_mhz) *
                    (1.0 + gpu.noise_sd * run_noise_key(1, g)[0].normal()));
    noise += gpu.noise_sd * gpu.noise_sd / kGpus;
  }
  const double spread = 100 * sd(times) / mean(times);
  EXPECT_NEAR(spread, 100 * std::sqrt(noise), 0.2);
  EXPECT_GT(spread, 0.05) << "no run noise";
  std::printf("VT13 CV of time %.3f %%, run noise %.3f %% (within 0.2)\n", spread,
              100 * std::sqrt(noise));
}

TEST(ModelFleet, RunNoiseHasThePublishedSize) {
  std::vector<double> sds;
  sds.reserve(10'000);
  for (DeviceId g = 0; g < 10'000; ++g) {
    sds.push_back(100 * draw_gpu(find_family("v100-sxm2"), {}, 1, g).noise_sd);
  }
  std::ranges::sort(sds);
  EXPECT_NEAR(quantile(sds, 0.5), 0.12, 0.005);
  EXPECT_NEAR(quantile(sds, 0.95), 0.35, 0.02);
}

}  // namespace
}  // namespace moevar::fleet
