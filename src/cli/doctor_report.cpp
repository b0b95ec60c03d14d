#include "cli/doctor_report.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/text.hpp"

namespace moevar::cli {

namespace {

using nlohmann::json;
using Row = std::vector<std::string>;

/// Columns as wide as their widest cell, two spaces between them; the last one ends freely.
std::string table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      widths[c] = std::max(widths[c], row[c].size());
    }
  }
  std::string text;
  for (const auto& row : rows) {
    text += " ";
    for (std::size_t c = 0; c < row.size(); ++c) {
      fmt::format_to(std::back_inserter(text), " {:<{}}{}", row[c],
                     c + 1 < row.size() ? widths[c] : 0, c + 1 < row.size() ? " " : "");
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

/// A number or a text, or `otherwise` where it is null.
std::string shown(const json& value, const std::string& otherwise = "?") {
  if (value.is_null()) {
    return otherwise;
  }
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string gibibytes(const json& bytes) {
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  return bytes.is_null() ? "?" : fmt::format("{:.1f}", bytes.get<double>() / kGiB);
}

std::string watts(const json& power, const char* name) {
  return !power.is_object() || power[name].is_null()
             ? "?"
             : fmt::format("{:g}", power[name].get<double>());
}

std::string on_or_off(const json& value) {
  return value.is_null() ? "?" : value.get<bool>() ? "on" : "off";
}

std::string numbers(const json& list) {
  return list.is_null() ? "?" : ranges(list.get<std::vector<int>>());
}

/// The cores of the ranks that drive a GPU; of one that none drives those near it, in brackets.
std::string cores_of(const json& gpu, const json& ranks) {
  if (gpu["ranks"].empty()) {
    return gpu["near_cores"].is_null() ? "?" : fmt::format("({})", numbers(gpu["near_cores"]));
  }
  Row texts;
  for (const auto& rank : gpu["ranks"]) {
    const auto& of = ranks[rank.get<std::size_t>()];
    texts.push_back(numbers(of["cores"]) + (of["note"].is_null() ? "" : "?"));
  }
  return fmt::format("{}", fmt::join(texts, " "));
}

std::string ranks_of(const json& gpu) {
  if (gpu["ranks"].empty()) {
    return "-";
  }
  return fmt::format("{}", fmt::join(gpu["ranks"].get<std::vector<int>>(), " "));
}

std::string users_of(const json& gpu) {
  if (!gpu["problem"].is_null()) {
    return fmt::format("{}", gpu["problem"].get<std::string>());
  }
  if (gpu["processes"].is_null()) {
    return "?";
  }
  constexpr std::size_t kMost = 3;
  Row texts;
  for (const auto& process : gpu["processes"]) {
    if (texts.size() == kMost) {
      texts.push_back(fmt::format("{} more", gpu["processes"].size() - kMost));
      break;
    }
    texts.push_back(fmt::format("{} {} ({} GiB)", shown(process["pid"]), shown(process["name"]),
                                gibibytes(process["memory_bytes"])));
  }
  return texts.empty() ? "-" : fmt::format("{}", fmt::join(texts, ", "));
}

std::string gpu_map(const json& gpus, const json& ranks) {
  std::vector<Row> rows{
      {"NVML", "CUDA", "rank", "UUID", "PCI", "SMs", "CC", "free / GiB", "node", "cores", "name"}};
  for (const auto& gpu : gpus) {
    rows.push_back({shown(gpu["nvml_index"], "-"), shown(gpu["cuda_ordinal"], "-"), ranks_of(gpu),
                    shown(gpu["uuid"]), shown(gpu["pci"]), shown(gpu["sms"]),
                    shown(gpu["compute_capability"]),
                    fmt::format("{} / {}", gibibytes(gpu["memory_free_bytes"]),
                                gibibytes(gpu["memory_total_bytes"])),
                    numbers(gpu["memory_nodes"]), cores_of(gpu, ranks), shown(gpu["name"])});
  }
  return table(rows);
}

std::string gpu_states(const json& gpus) {
  std::vector<Row> rows{{"NVML", "min / default / max W", "requested / enforced W", "persistence",
                         "compute mode", "MIG", "used by"}};
  for (const auto& gpu : gpus) {
    const auto& power = gpu["power"];
    rows.push_back({shown(gpu["nvml_index"], "-"),
                    fmt::format("{} / {} / {}", watts(power, "min_w"), watts(power, "default_w"),
                                watts(power, "max_w")),
                    fmt::format("{} / {}", watts(power, "requested_w"), watts(power, "enforced_w")),
                    on_or_off(gpu["persistence"]), shown(gpu["compute_mode"]),
                    on_or_off(gpu["mig"]), users_of(gpu)});
  }
  return table(rows);
}

std::string library_line(const json& library) {
  return library["version"].is_null()
             ? fmt::format("none ({})", shown(library["problem"]))
             : fmt::format("{} ({})", shown(library["version"]), shown(library["library"]));
}

std::string nccl_line(const json& host) {
  const auto& shares = host["nccl_shares_gpus"];
  return library_line(host["nccl"]) +
         (shares.is_null()     ? ""
          : shares.get<bool>() ? "; ranks may share a GPU (NCCL_MULTI_RANK_GPU_ENABLE=1)"
                               : "; takes one rank a GPU (2.30 takes more)");
}

/// The notes of a host's ranks, each once.
std::string notes_of(const json& ranks, std::size_t node) {
  std::set<std::string> notes;
  for (const auto& rank : ranks) {
    if (rank["node"] == node && !rank["note"].is_null()) {
      notes.insert(rank["note"].get<std::string>());
    }
  }
  std::string text;
  for (const auto& note : notes) {
    fmt::format_to(std::back_inserter(text), "  cores     {}\n", note);
  }
  return text;
}

std::string render_host(const json& host, std::size_t node, const json& ranks) {
  const auto driver = host["driver"].is_null()
                          ? std::string("no driver")
                          : fmt::format("driver {}, CUDA up to {}", shown(host["driver"]),
                                        shown(host["driver_cuda"]));
  auto text = fmt::format("\n{}: {}; {}\n", shown(host["host"]), driver, shown(host["topology"]));
  const auto& gpus = host["gpus"];
  if (!gpus.empty()) {
    text += gpu_map(gpus, ranks) + gpu_states(gpus);
  }
  text += notes_of(ranks, node);
  if (!host["nvml_problem"].is_null()) {
    text += fmt::format("  problem   {}\n", shown(host["nvml_problem"]));
  }
  const auto& caps = host["caps"];
  text += fmt::format("  caps      {} ({})\n",
                      caps["settable"].get<bool>() ? "could be set" : "cannot be set",
                      shown(caps["why"]));
  text += fmt::format("  NCCL      {}\n  cuBLASLt  {}\n", nccl_line(host),
                      library_line(host["cublaslt"]));
  return text;
}

}  // namespace

std::string render_doctor(const json& document) {
  const auto& program = document["moevar"];
  const auto& mpi = document["mpi"];
  const auto& aware = mpi["cuda_aware"];
  auto text = fmt::format("moevar {}, built with CUDA {}; {} rank(s) on {} host(s)\n",
                          shown(program["moevar"]), shown(program["CUDA"]), shown(mpi["ranks"]),
                          document["hosts"].size());
  text +=
      fmt::format("  MPI       {}, threads {}, {}\n", shown(mpi["library"]), shown(mpi["threads"]),
                  aware.is_null()     ? "does not tell whether it is CUDA-aware"
                  : aware.get<bool>() ? "CUDA-aware"
                                      : "not CUDA-aware: what it sends of a GPU goes through "
                                        "host memory");
  text += fmt::format("  HDF5      {}, {}\n", shown(document["hdf5"]["version"]),
                      document["hdf5"]["parallel"].get<bool>() ? "parallel: all ranks write"
                                                               : "serial: rank 0 writes");
  for (std::size_t node = 0; node < document["hosts"].size(); ++node) {
    text += render_host(document["hosts"][node], node, document["ranks"]);
  }
  text += '\n';
  for (const auto& device : document["devices"]) {
    text += fmt::format("{}: {}: {}\n", shown(device["kind"]),
                        device["usable"].get<bool>() ? "yes" : "no", shown(device["why"]));
    if (!device["advice"].is_null()) {
      text += fmt::format("      {}\n", shown(device["advice"]));
    }
  }
  return text;
}

}  // namespace moevar::cli
