#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/random.hpp"
#include "base/tensor.hpp"
#include "placement/speed_model.hpp"
#include "workload/load_file.hpp"

/// Recorded expert counts and measured fleets for tests; nothing where ../shared/data is absent.
namespace moevar::placement::real {

inline constexpr const char* kRecords[] = {"decode_in1000out1000", "decode_in2000out100",
                                           "decode_in500out1500",  "prefill_in1000out1000",
                                           "prefill_in1024",       "prefill_in4096"};
inline constexpr const char* kFleets[] = {"longhorn_v100_sgemm", "perlmutter_a100_gemm"};

inline std::optional<std::string> read(const std::string& name) {
  std::ifstream file(std::filesystem::path(MOEVAR_SHARED_DATA) / name);
  if (!file) {
    return std::nullopt;
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/// DeepSeek-V3's loads, [58 layers][256 experts], each layer scaled to `tokens` × top-8.
inline std::optional<Matrix<double>> loads(const std::string& record, double tokens) {
  const std::string name = "deepseek-v3-expert-counts/" + record + ".json";
  const auto text = read(name);
  if (!text) {
    return std::nullopt;
  }
  const auto recorded = workload::parse_loads(*text, name);
  Matrix<double> loads({recorded.counts.extent(1), recorded.counts.extent(2)});
  for (std::size_t layer = 0; layer < loads.extent(0); ++layer) {
    const auto counts = recorded.counts.row(0, layer);
    double sum = 0.0;
    for (const double count : counts) {
      sum += count;
    }
    std::ranges::transform(counts, loads.row(layer).begin(),
                           [&](double count) { return count * 8.0 * tokens / sum; });
  }
  return loads;
}

/// Median time of every GPU over the fleet's median; Perlmutter's 80 GB nodes are another pool.
inline std::optional<std::vector<double>> relative_times(const std::string& fleet) {
  const auto text = read("gpu-fleets/" + fleet + ".csv");
  if (!text) {
    return std::nullopt;
  }
  const bool perlmutter = fleet.starts_with("perlmutter");
  std::map<std::string, std::vector<double>> runs;
  std::istringstream lines(*text);
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    std::vector<std::string> fields;
    std::istringstream row(line);
    for (std::string field; std::getline(row, field, ',');) {
      fields.push_back(field);
    }
    if (!perlmutter) {
      runs[fields[3]].push_back(std::stod(fields[11]));
    } else if (fields[0] < "nid008") {
      runs[fields[0] + "/" + fields[1]].push_back(std::stod(fields[2]));
    }
  }
  const auto median = [](std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
    std::ranges::nth_element(values, middle);
    return *middle;
  };
  std::vector<double> times;
  for (const auto& [gpu, values] : runs) {
    times.push_back(median(values));
  }
  const double typical = median(times);
  for (double& time : times) {
    time /= typical;
  }
  return times;
}

/// Devices drawn from a fleet, with time proportional to tokens.
inline SpeedModels draw(const std::vector<double>& times, int devices, std::uint64_t seed) {
  SpeedModels speeds;
  for (int d = 0; d < devices; ++d) {
    const auto gpu = RandomKey(seed)[static_cast<std::uint64_t>(d)].below(times.size());
    speeds.push_back(SpeedCurve({1.0}, {times[gpu]}));
  }
  return speeds;
}

}  // namespace moevar::placement::real
