#include "system/affinity.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <hwloc.h>

#include "base/error.hpp"

namespace moevar::affinity {

namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, TopologyDeleter>;

struct BitmapDeleter {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<std::remove_pointer_t<hwloc_bitmap_t>, BitmapDeleter>;

Topology new_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) {
    throw LibraryError("hwloc_topology_init", std::strerror(errno));
  }
  return Topology(raw);
}

Topology loaded(Topology topology) {
  if (hwloc_topology_load(topology.get()) != 0) {
    throw LibraryError("hwloc_topology_load", std::strerror(errno));
  }
  return topology;
}

Topology load_topology() { return loaded(new_topology()); }

/// PCI devices alone: what hwloc would ask other drivers for takes time and may hang. They are read
/// from the system's own files, since hwloc's plug-in over libpciaccess is not everywhere and
/// leaks.
Topology new_topology_with_pci() {
  auto topology = new_topology();
  // refused where there is no such plug-in, which is as good
  (void)hwloc_topology_set_components(topology.get(), HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                      "pci");
  if (hwloc_topology_set_type_filter(topology.get(), HWLOC_OBJ_PCI_DEVICE,
                                     HWLOC_TYPE_FILTER_KEEP_ALL) != 0) {
    throw LibraryError("hwloc_topology_set_type_filter", std::strerror(errno));
  }
  return topology;
}

std::vector<int> indices_of(hwloc_const_bitmap_t set) {
  std::vector<int> indices;
  for (int index = hwloc_bitmap_first(set); index >= 0; index = hwloc_bitmap_next(set, index)) {
    indices.push_back(index);
  }
  return indices;
}

/// The hardware threads this process may run on: what the launcher or a control group left it.
Bitmap allowed_threads(hwloc_topology_t topology) {
  Bitmap allowed(hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topology)));
  const Bitmap bound(hwloc_bitmap_alloc());
  if (hwloc_get_cpubind(topology, bound.get(), HWLOC_CPUBIND_PROCESS) == 0 &&
      hwloc_bitmap_intersects(allowed.get(), bound.get()) != 0) {
    hwloc_bitmap_and(allowed.get(), allowed.get(), bound.get());
  }
  return allowed;
}

std::vector<int> usable_cores_of(hwloc_topology_t topology) {
  const auto allowed = allowed_threads(topology);
  std::vector<int> cores;
  const int count = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
  for (int i = 0; i < count; ++i) {
    const auto* core = hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, static_cast<unsigned>(i));
    const Bitmap mine(hwloc_bitmap_dup(core->cpuset));
    hwloc_bitmap_and(mine.get(), mine.get(), allowed.get());
    if (const int first = hwloc_bitmap_first(mine.get()); first >= 0) {
      cores.push_back(first);
    }
  }
  if (cores.empty()) {  // a machine that does not say which threads share a core
    cores = indices_of(allowed.get());
  }
  std::ranges::sort(cores);
  return cores;
}

/// The number in a one-line file; nothing where there is no such file or no number in it ("max").
std::optional<std::size_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::size_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

/// The value that follows `key` in a file of "key value" lines.
std::optional<std::size_t> value_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::size_t value = 0;
    if (words >> name >> value && name == key) {
      return value;
    }
  }
  return std::nullopt;
}

/// What a control group leaves: its limit less what is in use, page cache that can go not counted.
std::size_t left_in_group(const std::string& limit_file, const std::string& usage_file,
                          const std::string& statistics, const std::string& cache_key) {
  const auto limit = number_in(limit_file);
  const auto usage = number_in(usage_file);
  if (!limit || !usage) {
    return std::numeric_limits<std::size_t>::max();
  }
  const std::size_t cache = std::min(value_of(statistics, cache_key).value_or(0), *usage);
  const std::size_t used = *usage - cache;
  return *limit > used ? *limit - used : 0;
}

/// The tightest of this process's control groups, from its own up to the root's.
std::size_t left_in_groups() {
  std::size_t left = std::numeric_limits<std::size_t>::max();
  std::ifstream membership("/proc/self/cgroup");
  std::string line;
  while (std::getline(membership, line)) {
    const bool unified = line.starts_with("0::");
    const auto path_at = line.rfind(':');
    const bool memory = line.find(":memory:") != std::string::npos;
    if ((!unified && !memory) || path_at == std::string::npos) {
      continue;
    }
    const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::string path = line.substr(path_at + 1);
    while (true) {
      const std::string group = root + path;
      left =
          std::min(left, unified ? left_in_group(group + "/memory.max", group + "/memory.current",
                                                 group + "/memory.stat", "inactive_file")
                                 : left_in_group(group + "/memory.limit_in_bytes",
                                                 group + "/memory.usage_in_bytes",
                                                 group + "/memory.stat", "total_inactive_file"));
      if (path.empty() || path == "/") {
        break;
      }
      path.resize(path.rfind('/'));
    }
  }
  return left;
}

}  // namespace

std::vector<int> usable_cores() { return usable_cores_of(load_topology().get()); }

int bind_to_core(int local_rank) {
  const auto topology = load_topology();
  const auto cores = usable_cores_of(topology.get());
  const int core = cores[static_cast<std::size_t>(local_rank) % cores.size()];
  const Bitmap set(hwloc_bitmap_alloc());
  hwloc_bitmap_only(set.get(), static_cast<unsigned>(core));
  if (hwloc_set_cpubind(topology.get(), set.get(), HWLOC_CPUBIND_PROCESS) != 0) {
    throw LibraryError(fmt::format("hwloc_set_cpubind to core {}", core), std::strerror(errno));
  }
  return core;
}

bool bind_to_cores(std::span<const int> cores) {
  const auto topology = load_topology();
  const Bitmap threads(hwloc_bitmap_alloc());
  for (const int core : cores) {
    hwloc_bitmap_set(threads.get(), static_cast<unsigned>(core));
  }
  if (hwloc_set_cpubind(topology.get(), threads.get(), HWLOC_CPUBIND_PROCESS) != 0) {
    throw LibraryError(fmt::format("hwloc_set_cpubind to {} cores from {} on", cores.size(),
                                   cores.empty() ? -1 : cores.front()),
                       std::strerror(errno));
  }
  return hwloc_set_membind(topology.get(), threads.get(), HWLOC_MEMBIND_BIND, 0) == 0;
}

struct Machine::Hidden {
  explicit Hidden(Topology loaded) : topology(std::move(loaded)) {}
  Topology topology;
};

Machine::Machine() : hidden_(std::make_unique<Hidden>(loaded(new_topology_with_pci()))) {}

Machine::Machine(const std::string& xml) {
  auto topology = new_topology_with_pci();
  if (hwloc_topology_set_xmlbuffer(topology.get(), xml.c_str(), static_cast<int>(xml.size()) + 1) !=
      0) {
    throw LibraryError("hwloc_topology_set_xmlbuffer", std::strerror(errno));
  }
  hidden_ = std::make_unique<Hidden>(loaded(std::move(topology)));
}

Machine::~Machine() = default;

std::vector<int> Machine::usable_cores() const { return usable_cores_of(hidden_->topology.get()); }

std::optional<Locality> Machine::near(const pci::Address& device) const {
  auto* const topology = hidden_->topology.get();
  auto* const found =
      hwloc_get_pcidev_by_busid(topology, device.domain, device.bus, device.device, 0);
  if (found == nullptr) {
    return std::nullopt;
  }
  const auto* const next_to = hwloc_get_non_io_ancestor_obj(topology, found);
  const auto* const root = hwloc_get_root_obj(topology);
  const bool everywhere = hwloc_bitmap_isequal(next_to->cpuset, root->cpuset) != 0;
  if (everywhere && hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) > 1) {
    return std::nullopt;
  }
  return Locality{indices_of(next_to->cpuset), indices_of(next_to->nodeset)};
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) {
    throw LibraryError("gethostname", std::strerror(errno));
  }
  const std::string full(name.data());
  return full.substr(0, full.find('.'));
}

std::string topology() {
  try {
    const auto machine = load_topology();
    const auto count = [&](hwloc_obj_type_t type) {
      return std::max(hwloc_get_nbobjs_by_type(machine.get(), type), 0);
    };
    return fmt::format("{} packages, {} memory nodes, {} cores, {} hardware threads",
                       count(HWLOC_OBJ_PACKAGE), count(HWLOC_OBJ_NUMANODE), count(HWLOC_OBJ_CORE),
                       count(HWLOC_OBJ_PU));
  } catch (const Error&) {
    return "unknown";
  }
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown CPU";
}

std::size_t available_memory_bytes() {
  constexpr std::size_t kKilobyte = 1024;
  const auto kilobytes = value_of("/proc/meminfo", "MemAvailable:");
  if (!kilobytes) {
    throw LibraryError("reading MemAvailable of /proc/meminfo", "no such line");
  }
  return std::min(*kilobytes * kKilobyte, left_in_groups());
}

}  // namespace moevar::affinity
