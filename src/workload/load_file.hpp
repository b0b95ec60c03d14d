#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.hpp"
#include "workload/routing.hpp"

namespace moevar::workload {

/// Numbers in a file lie in [0, most]; what they are is for messages.
struct NumberRule {
  std::string_view name;
  double most = 0.0;
  bool whole = false;
};

bool obeys(double value, const NumberRule& rule) noexcept;

/// Throws InputError, "path, where: ...", for a value that does not obey the rule.
[[noreturn]] void refuse_number(double value, const NumberRule& rule, const std::string& path,
                                std::string_view where);

/// Recorded routing as it stands in a file. Counts: [steps][layers][experts][1]; ids:
/// [steps][layers][tokens][top_k]. One step where the file has no axis of steps.
struct Recording {
  Tensor<double, 4> values;
  std::vector<std::int64_t> layers;  ///< the file's own number of each layer, for messages
};

/// Both read counts, each in [0, 2^53], and throw InputError with the path and, where known, the
/// row or the place. JSON: {"logical_count": [layers][experts] or [steps][layers][experts]}. CSV:
/// [step,]layer,expert,count in any order of columns and rows, one row for every expert of every
/// layer and step; layers without rows are left out.
Recording parse_counts_json(const std::string& text, const std::string& path);
Recording parse_counts_csv(const std::string& text, const std::string& path);

/// As above for expert ids, whole numbers in [0, most_id]. JSON: {"topk_ids":
/// [layers][tokens][top_k] or with steps in front}. CSV: [step,]layer,token,expert, top_k rows for
/// every token of every layer and step.
Recording parse_ids_json(const std::string& text, const std::string& path, double most_id);
Recording parse_ids_csv(const std::string& text, const std::string& path, double most_id);

/// Recorded counts of the MoE layers alone.
struct RecordedLoads {
  Tensor<double, 3> counts;          ///< [steps][MoE layers][experts]
  std::vector<std::int64_t> layers;  ///< the file's own number of each MoE layer, rising
  int model_layers = 0;              ///< layers that the file tells of, dense ones too
};

/// Reads either of the two formats of counts, by the path's ending; layers without any tokens are
/// dense and left out. Throws InputError as the readers above do, and where no layer has tokens.
RecordedLoads parse_loads(const std::string& text, const std::string& path);

enum class FileKind { json, csv };

/// By the ending of the path. Throws InputError for any other than .json and .csv.
FileKind file_kind(const std::string& path);

/// How many of the recorded layers are asked for: all where expected.layers is 0. Throws InputError
/// where there are fewer, or none.
std::size_t layers_to_use(const RoutingShape& expected, std::size_t recorded,
                          const std::string& path);

constexpr NumberRule kCountRule{"a count", 0x1p53, false};

/// Where no number of experts is known before the file is read.
constexpr double kLargestId = std::numeric_limits<std::int32_t>::max() - 1;

}  // namespace moevar::workload
