#include "system/host.hpp"

#include <array>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sys/utsname.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/error.hpp"
#include "system/affinity.hpp"
#include "system/hdf5.hpp"
#include "system/mpi.hpp"
#include "system/nvml.hpp"
#include "system/optional_library.hpp"

namespace moevar::host {

namespace {

constexpr auto kUnknown = "unknown";

/// The first line of a file; "unknown" where there is none.
std::string line_of(const char* path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) && !line.empty() ? line : kUnknown;
}

std::string kernel() {
  utsname names{};
  return ::uname(&names) == 0 ? fmt::format("{} {} {}", names.sysname, names.release, names.machine)
                              : kUnknown;
}

std::string memory() {
  const auto pages = ::sysconf(_SC_PHYS_PAGES);
  const auto page = ::sysconf(_SC_PAGESIZE);
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  return pages > 0 && page > 0 ? fmt::format("{:.0f} GiB", static_cast<double>(pages) *
                                                               static_cast<double>(page) / kGiB)
                               : kUnknown;
}

/// "NVIDIA H100 80GB HBM3, GPU-..., power limit 700 W, SM clock up to 1980 MHz"
std::string describe(const nvml::Device& gpu) {
  constexpr double kMilli = 1e-3;
  auto text = fmt::format("{}, {}", gpu.name(), gpu.uuid());
  try {
    text += fmt::format(", power limit {:g} W", kMilli * gpu.requested_limit());
  } catch (const Error&) {  // NOLINT(bugprone-empty-catch): some boards have none
  }
  if (const auto clock = gpu.most_sm_clock_mhz()) {
    text += fmt::format(", SM clock up to {} MHz", *clock);
  }
  return text;
}

void add_gpus(std::map<std::string, std::string>& facts) {
  facts["driver"] = "none";
  if (!nvml::available()) {
    return;
  }
  facts["driver"] = nvml::driver_version().value_or(kUnknown);
  // a GPU that is lost keeps nobody from a study that needs none
  try {
    std::size_t index = 0;
    for (const auto& uuid : nvml::uuids()) {
      const auto name = fmt::format("GPU {}", index++);
      facts[name] = uuid;
      facts[name] = describe(nvml::Device::find(uuid));
    }
  } catch (const Error& error) {
    facts["GPUs"] = error.what();
  }
}

// By name, none by pattern: a variable that somebody else may have put a secret into stays out.
constexpr std::array kAllowed{"CUDA_DEVICE_ORDER",
                              "CUDA_VISIBLE_DEVICES",
                              "GOMP_CPU_AFFINITY",
                              "HDF5_USE_FILE_LOCKING",
                              "LANG",
                              "LC_ALL",
                              "MOEVAR_CUBLASLT",
                              "MOEVAR_NCCL",
                              "MOEVAR_NVML",
                              "MOEVAR_PROGRESS",
                              "NCCL_ALGO",
                              "NCCL_IB_DISABLE",
                              "NCCL_IB_HCA",
                              "NCCL_MAX_NCHANNELS",
                              "NCCL_MIN_NCHANNELS",
                              "NCCL_MULTI_RANK_GPU_ENABLE",
                              "NCCL_NVLS_ENABLE",
                              "NCCL_P2P_DISABLE",
                              "NCCL_P2P_LEVEL",
                              "NCCL_PROTO",
                              "NCCL_SHM_DISABLE",
                              "NCCL_SOCKET_IFNAME",
                              "NVIDIA_VISIBLE_DEVICES",
                              "OMPI_MCA_btl",
                              "OMPI_MCA_coll",
                              "OMPI_MCA_hwloc_base_binding_policy",
                              "OMPI_MCA_mtl",
                              "OMPI_MCA_osc",
                              "OMPI_MCA_plm",
                              "OMPI_MCA_pml",
                              "OMPI_MCA_rmaps_base_mapping_policy",
                              "OMP_NUM_THREADS",
                              "OMP_PLACES",
                              "OMP_PROC_BIND",
                              "OPENBLAS_CORETYPE",
                              "OPENBLAS_NUM_THREADS",
                              "SLURM_ARRAY_TASK_ID",
                              "SLURM_CPUS_PER_TASK",
                              "SLURM_CPU_BIND",
                              "SLURM_GPUS_ON_NODE",
                              "SLURM_JOB_ID",
                              "SLURM_JOB_NODELIST",
                              "SLURM_JOB_NUM_NODES",
                              "SLURM_JOB_PARTITION",
                              "SLURM_NTASKS",
                              "SLURM_RESTART_COUNT",
                              "SLURM_TASKS_PER_NODE",
                              "UCX_NET_DEVICES",
                              "UCX_TLS"};

}  // namespace

std::map<std::string, std::string> facts() {
  std::map<std::string, std::string> all{
      {"kernel", kernel()},
      {"processor", affinity::cpu_model()},
      {"topology", affinity::topology()},
      {"memory", memory()},
      {"governor", line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")}};
  add_gpus(all);
  return all;
}

std::map<std::string, std::string> libraries() {
  return {{"MPI", mpi::library_version()},
          {"HDF5", hdf5::library_version()},
          {"NCCL", find_nccl().version_text()}};
}

std::map<std::string, std::string> environment() {
  std::map<std::string, std::string> all;
  for (const char* name : kAllowed) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing in this program changes its environment
    if (const char* value = std::getenv(name)) {
      all[name] = value;
    }
  }
  return all;
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, sizeof "2026-11-22T11:12:47Z"> text{};
  const auto length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text.data(), length};
}

}  // namespace moevar::host
