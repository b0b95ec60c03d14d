#include "cli/doctor_facts.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "base/error.hpp"
#include "conditions/within.hpp"
#include "system/affinity.hpp"
#include "system/gpu.hpp"
#include "system/hdf5.hpp"
#include "system/mpi.hpp"
#include "system/nvml.hpp"
#include "system/optional_library.hpp"

namespace moevar::cli {

namespace {

using nlohmann::json;

template <class T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json text_or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

/// "13.0" of 13000; null of 0.
json cuda_version(int version) {
  return version == 0 ? json(nullptr)
                      : json(fmt::format("{}.{}", version / 1000, version % 1000 / 10));
}

/// "9.0" of 90.
std::string capability_text(int capability) {
  return fmt::format("{}.{}", capability / 10, capability % 10);
}

json library_facts(const OptionalLibrary& library) {
  return {{"library", library.name},
          {"version", text_or_null(library.readable)},
          {"problem", text_or_null(library.problem)}};
}

/// Null where this driver does not tell; a GPU that is lost is this GPU's problem.
template <class Ask>
json told(json& gpu, const Ask& ask) {
  try {
    return ask();
  } catch (const nvml::NvmlError& error) {
    if (error.kind() == nvml::Failure::lost) {
      gpu["problem"] = error.what();
    }
    return nullptr;
  }
}

json process_name(unsigned pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string name;
  return std::getline(file, name) ? json(name) : json(nullptr);
}

json processes_of(const nvml::Device& device) {
  json all = json::array();
  for (const auto& process : device.processes()) {
    all.push_back({{"pid", process.pid},
                   {"name", process_name(process.pid)},
                   {"memory_bytes", or_null(process.memory_bytes)}});
  }
  return all;
}

constexpr std::array<std::string_view, 4> kComputeModes{"default", "exclusive-thread", "prohibited",
                                                        "exclusive-process"};

json compute_mode_of(const nvml::Device& device) {
  const auto mode = device.compute_mode();
  return mode ? json(kComputeModes.at(static_cast<std::size_t>(*mode))) : json(nullptr);
}

constexpr double kMilli = 1e-3;

json power_of(json& gpu, const nvml::Device& device) {
  json power{{"min_w", nullptr}, {"default_w", nullptr}, {"max_w", nullptr}};
  told(gpu, [&] {
    const auto limits = device.limits();
    power = {{"min_w", kMilli * limits.min},
             {"default_w", kMilli * limits.normal},
             {"max_w", kMilli * limits.max}};
    return json();
  });
  power["requested_w"] = told(gpu, [&] { return kMilli * device.requested_limit(); });
  power["enforced_w"] = told(gpu, [&] { return kMilli * device.enforced_limit(); });
  return power;
}

json empty_gpu() {
  return {{"nvml_index", nullptr},
          {"uuid", nullptr},
          {"name", nullptr},
          {"pci", nullptr},
          {"sms", nullptr},
          {"compute_capability", nullptr},
          {"memory_total_bytes", nullptr},
          {"memory_free_bytes", nullptr},
          {"persistence", nullptr},
          {"power", nullptr},
          {"compute_mode", nullptr},
          {"mig", nullptr},
          {"processes", nullptr},
          {"near_cores", nullptr},
          {"memory_nodes", nullptr},
          {"ranks", json::array()},
          {"cuda_ordinal", nullptr},
          {"problem", nullptr}};
}

struct AskedGpu {
  json facts;
  std::optional<pci::Address> pci;
};

/// What NVML tells of a GPU.
AskedGpu ask_gpu(unsigned index) {
  AskedGpu asked{empty_gpu(), std::nullopt};
  auto& gpu = asked.facts;
  gpu["nvml_index"] = index;
  try {
    const auto device = nvml::Device::at(index);
    gpu["uuid"] = device.uuid();
    gpu["name"] = told(gpu, [&] { return device.name(); });
    gpu["pci"] = told(gpu, [&] {
      asked.pci = device.pci_address();
      return pci::to_string(*asked.pci);
    });
    if (const auto capability = device.capability()) {
      gpu["compute_capability"] = capability_text(*capability);
    }
    told(gpu, [&] {
      const auto memory = device.memory();
      gpu["memory_total_bytes"] = memory.total_bytes;
      gpu["memory_free_bytes"] = memory.free_bytes;
      return json();
    });
    gpu["persistence"] = or_null(device.persistence_mode());
    gpu["power"] = power_of(gpu, device);
    gpu["compute_mode"] = compute_mode_of(device);
    gpu["mig"] = or_null(device.mig_mode());
    gpu["processes"] = told(gpu, [&] { return processes_of(device); });
  } catch (const EnvironmentError& error) {
    gpu["problem"] = error.what();
  }
  return asked;
}

void set_near(json& gpu, const std::optional<affinity::Locality>& near,
              const std::vector<int>& cores) {
  if (near) {
    std::vector<int> mine;
    std::ranges::set_intersection(cores, near->threads, std::back_inserter(mine));
    gpu["near_cores"] = mine;
    gpu["memory_nodes"] = near->memory_nodes;
  }
}

json ask_gpus(const affinity::Machine& machine, const std::vector<int>& cores) {
  const unsigned count =
      conditions::within(conditions::kCallLimit, "counting GPUs", [] { return nvml::count(); });
  json gpus = json::array();
  for (unsigned index = 0; index < count; ++index) {
    AskedGpu asked{empty_gpu(), std::nullopt};
    try {
      asked = conditions::within(conditions::kCallLimit, fmt::format("GPU {} of NVML", index),
                                 [index] { return ask_gpu(index); });
    } catch (const conditions::Unanswered& error) {
      asked.facts["nvml_index"] = index;
      asked.facts["problem"] = error.what();
    }
    if (asked.pci) {
      set_near(asked.facts, machine.near(*asked.pci), cores);
    }
    gpus.push_back(std::move(asked.facts));
  }
  return gpus;
}

/// Whether this process holds the right that the driver asks of whoever sets a power limit.
bool may_administer() {
  constexpr unsigned kSysAdmin = 21;
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line)) {
    constexpr std::string_view kKey = "CapEff:";
    if (line.starts_with(kKey)) {
      return ((std::stoull(line.substr(kKey.size()), nullptr, 16) >> kSysAdmin) & 1U) != 0;
    }
  }
  return ::geteuid() == 0;
}

/// Whether power limits could be set, by this process's rights alone: nothing is tried.
json caps_facts(const json& gpus) {
  const bool limits = std::ranges::any_of(gpus, [](const json& gpu) {
    return gpu["power"].is_object() && !gpu["power"]["min_w"].is_null();
  });
  if (!limits) {
    return {{"settable", false},
            {"why", gpus.empty() ? "NVML shows no GPU" : "no GPU tells its power limits"}};
  }
  if (may_administer()) {
    return {{"settable", true}, {"why", "CAP_SYS_ADMIN; not tried"}};
  }
  return {{"settable", false},
          {"why", ::geteuid() == 0
                      ? std::string("root without CAP_SYS_ADMIN, as in a container")
                      : fmt::format("user {} is not root; an administrator may set caps, and "
                                    R"(conditions.caps = "verify" checks them)",
                                    ::geteuid())}};
}

/// The host's row of a GPU that a rank with these cores sees; a new one where NVML shows none.
json& gpu_of(json& host, const fleet::SeenGpu& seen, const std::vector<int>& cores) {
  for (auto& gpu : host["gpus"]) {
    if (gpu["uuid"] == seen.gpu.uuid) {
      return gpu;
    }
  }
  auto gpu = empty_gpu();
  gpu["uuid"] = seen.gpu.uuid;
  gpu["name"] = seen.gpu.name;
  gpu["pci"] = pci::to_string(seen.gpu.pci);
  gpu["compute_capability"] = capability_text(seen.gpu.capability);
  gpu["memory_total_bytes"] = seen.gpu.memory_bytes;
  set_near(gpu, seen.near, cores);
  host["gpus"].push_back(std::move(gpu));
  return host["gpus"].back();
}

json rank_facts(std::size_t rank, const fleet::RankView& view) {
  json visible = json::array();
  for (const auto& seen : view.gpus) {
    visible.push_back({{"ordinal", seen.gpu.ordinal}, {"uuid", seen.gpu.uuid}});
  }
  return {{"rank", rank},
          {"host", view.host},
          {"node", view.place.node},
          {"local_rank", view.place.local_rank},
          {"visible", visible},
          {"gpu", nullptr},
          {"ordinal", nullptr},
          {"cores", nullptr},
          {"note", nullptr}};
}

}  // namespace

json host_facts() {
  const affinity::Machine machine;
  const auto cores = machine.usable_cores();
  json host{{"host", affinity::host_name()},
            {"topology", affinity::topology()},
            {"driver", or_null(nvml::driver_version())},
            {"driver_cuda", nullptr},
            {"libcuda", gpu::driver_supports() != 0},
            {"nvml_problem", nullptr},
            {"cuda_problem", text_or_null(gpu::why_none_visible())},
            {"nccl", library_facts(find_nccl())},
            {"nccl_shares_gpus", nullptr},
            {"cublaslt", library_facts(find_cublaslt())},
            {"gpus", json::array()}};
  const int supported = gpu::driver_supports();
  host["driver_cuda"] =
      cuda_version(supported != 0 ? supported : nvml::driver_supports_cuda().value_or(0));
  if (const auto nccl = find_nccl(); nccl.found) {
    host["nccl_shares_gpus"] = nccl.version >= kNcclSharesGpus;
  }
  try {
    host["nvml_problem"] = text_or_null(nvml::why_unavailable());
    host["gpus"] = ask_gpus(machine, cores);
  } catch (const EnvironmentError& error) {
    host["nvml_problem"] = error.what();
  }
  host["caps"] = caps_facts(host["gpus"]);
  return host;
}

json mpi_facts(int ranks) {
  return {{"library", mpi::library_version()},
          {"ranks", ranks},
          {"threads", mpi::thread_level()},
          {"cuda_aware", or_null(mpi::cuda_aware())}};
}

json hdf5_facts() { return {{"version", hdf5::library_version()}, {"parallel", hdf5::parallel()}}; }

json map_ranks(std::span<const fleet::RankView> views, const fleet::GpuOptions& options,
               std::vector<json>& hosts) {
  json ranks = json::array();
  for (std::size_t rank = 0; rank < views.size(); ++rank) {
    const auto& view = views[rank];
    ranks.push_back(rank_facts(rank, view));
    for (const auto& seen : view.gpus) {
      auto& gpu = gpu_of(hosts[static_cast<std::size_t>(view.place.node)], seen, view.cores);
      gpu["sms"] = seen.gpu.sms;
      if (gpu["cuda_ordinal"].is_null()) {
        gpu["cuda_ordinal"] = seen.gpu.ordinal;
      }
    }
  }
  std::vector<fleet::AssignedGpu> assigned;
  try {
    assigned = fleet::assign_gpus(views, options);
  } catch (const EnvironmentError&) {
    return ranks;  // usable_devices says why
  }
  const auto shares = fleet::deal_cores(views, assigned);
  for (std::size_t rank = 0; rank < views.size(); ++rank) {
    const auto& view = views[rank];
    auto& gpu = gpu_of(hosts[static_cast<std::size_t>(view.place.node)],
                       view.gpus[assigned[rank].seen], view.cores);
    if (gpu["ranks"].empty()) {
      gpu["cuda_ordinal"] = assigned[rank].ordinal;
    }
    gpu["ranks"].push_back(rank);
    auto& mine = ranks[rank];
    mine["gpu"] = assigned[rank].uuid;
    mine["ordinal"] = assigned[rank].ordinal;
    mine["cores"] = shares[rank].cores;
    mine["note"] = text_or_null(shares[rank].note);
  }
  return ranks;
}

}  // namespace moevar::cli
